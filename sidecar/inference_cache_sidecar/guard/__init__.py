"""May this stored answer stand for that question? Rules over two texts; pure."""
