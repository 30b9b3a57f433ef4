"""`collect.lock`: who counts on blobs holds it shared, who removes them holds it alone. The folder `used`: the same for marks on trees.

They save work and no bytes: where they do not reach (other nodes, or somebody stopped who holds one), publishers notice each lost blob,
and a tree that was marked meanwhile is put back.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from inference_cache_artifacts.store import disk
from inference_cache_artifacts.store.layout import Store

_BUSY: Final = frozenset({errno.EAGAIN, errno.EACCES})
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.EBADF})
_POLL_SECONDS: Final = 0.01


def try_lock(fd: int, how: int) -> bool | None:
    """Whether the lock was had; None: this file system has none. Raises OSError."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


@contextmanager
def shared(store: Store, wait_seconds: float = 30.0) -> Iterator[bool]:
    """No collector on this node removes blobs meanwhile; False: waited in vain. Raises DiskFailed."""
    with _held(store.lock, fcntl.LOCK_SH, wait_seconds) as had:
        yield had


@contextmanager
def alone(store: Store, wait_seconds: float = 30.0) -> Iterator[bool]:
    """Nobody on this node announces or publishes meanwhile; False: waited in vain. Raises DiskFailed."""
    with _held(store.lock, fcntl.LOCK_EX, wait_seconds) as had:
        yield had


@contextmanager
def marking(store: Store, wait_seconds: float = 5.0) -> Iterator[bool]:
    """Nobody on this node looks for marks and takes a tree away meanwhile; held for two steps on the disk. Raises DiskFailed."""
    with _held(store.used, fcntl.LOCK_SH, wait_seconds) as had:
        yield had


@contextmanager
def unmarked(store: Store, wait_seconds: float = 5.0) -> Iterator[bool]:
    """Nobody on this node marks a tree meanwhile; held for two steps on the disk. Raises DiskFailed."""
    with _held(store.used, fcntl.LOCK_EX, wait_seconds) as had:
        yield had


@contextmanager
def _held(path: Path, how: int, wait_seconds: float) -> Iterator[bool]:
    with disk.disk_errors(path):
        # Over NFS only what is open for writing can be locked; a folder cannot be.
        fd = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _wait(path, fd, how, time.monotonic() + wait_seconds)
    finally:
        os.close(fd)


def _wait(path: Path, fd: int, how: int, deadline: float) -> bool:
    with disk.disk_errors(path):
        while (had := try_lock(fd, how)) is False and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    return bool(had)
