"""Verified files by their SHA-256: mode 0444, never written again."""

import hashlib
import os
from pathlib import Path

from inference_cache_artifacts.store import disk
from inference_cache_artifacts.store.layout import Store

MODE = 0o444


def has(store: Store, sha256: str, size: int) -> bool:
    """By name and size; bytes are hashed once, before they are adopted. Raises DiskFailed."""
    path = store.blob(sha256)
    with disk.disk_errors(path):
        return _size(path) == size


def adopt(store: Store, partial: Path, sha256: str) -> Path:
    """The file at `partial`, verified by the caller, becomes the blob, and is on the disk; one that is there already wins.

    Where it is killed half way, either `partial` or the blob is there, never one file under both names. Raises NoSpace, DiskFailed.
    """
    path = store.blob(sha256)
    with disk.disk_errors(path):
        if _size(path) == partial.stat().st_size:
            partial.unlink()
            return path
        _seal(partial)
        disk.make_folder(path.parent)
        partial.rename(path)
        disk.sync(path.parent)
    return path


def verify(store: Store, sha256: str) -> bool:
    """Whether the bytes still are what they were; False where it is gone. Raises DiskFailed."""
    return hash_of(store.blob(sha256)) == sha256


def hash_of(path: Path) -> str | None:
    """SHA-256 in hexadecimal digits; None where the file is gone. Raises DiskFailed."""
    with disk.disk_errors(path):
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _seal(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fchmod(fd, MODE)
        os.fsync(fd)
    finally:
        os.close(fd)
