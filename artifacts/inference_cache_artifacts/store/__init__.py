"""Verified files on one file system: blobs by content, trees of hard links by name, leases, users, and how room is made.

Nothing here knows of sources or of networks. Whatever happens to a process, a tree that `trees.find` gives is whole.
"""
