"""The hot configuration: read from its file while the process runs, taken up in place where that can be, and the flushes it orders."""
