"""Text to vector: implementations behind one protocol, and the worker that runs one off the event loop."""
