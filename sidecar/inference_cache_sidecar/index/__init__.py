"""Nearest vectors inside one scope. Sync and owned by the event loop's thread; long rebuilds go to a thread and are swapped in."""
