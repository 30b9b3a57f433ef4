"""`inference-cache demo`: the sidecar at work on a handful of questions, printed as a table.

What it prints is read from the answers' headers.
"""
