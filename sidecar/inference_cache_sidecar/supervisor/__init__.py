"""Fail-open: a small process that holds the listening sockets, restarts the cache worker, and passes connections on while that is away.

What it runs needs the standard library alone, so that it stays small. `worker_side` is the worker's part, `launching` the way in.
"""
