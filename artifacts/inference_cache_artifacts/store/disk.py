"""The edge to the disk: errors by name, and writes that a power cut leaves whole or undone."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from inference_cache_artifacts.errors import DiskFailed, NoSpace

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Every OSError of the block becomes NoSpace or DiskFailed, which name `path`: nothing but disk work belongs in it."""
    try:
        yield
    except OSError as error:
        text = f"{path}: {error.strerror or type(error).__name__}"
        raise (NoSpace if error.errno in _FULL else DiskFailed)(text) from error


def sync(path: Path) -> None:
    """A file's bytes, or a folder's names, are on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        sync_fd(fd)
    finally:
        os.close(fd)


def sync_fd(fd: int) -> None:
    """Some network file systems know no fsync of a folder, and say EINVAL: there the server has it already. Raises OSError."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def write_new(path: Path, data: bytes, mode: int) -> None:
    """A file that is not there yet, synced; its folder is the caller's to sync. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.fchmod(fd, mode)
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def replace(path: Path, data: bytes, mode: int = 0o644) -> None:
    """The file holds all of `data`, or what it held before. Raises OSError."""
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        write_new(temporary, data, mode)
        temporary.rename(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def make_folder(path: Path) -> None:
    """With its parents; made by another at the same time is as good. Raises OSError."""
    if path.is_dir():
        return
    path.mkdir(parents=True, exist_ok=True)
    sync(path.parent)


def listed(folder: Path) -> list[str]:
    """Names in it, in order; none where it is gone. Raises OSError."""
    try:
        return sorted(each.name for each in folder.iterdir())
    except FileNotFoundError:
        return []


def clock(touched: Path) -> float:
    """Seconds, as the file system tells time: only this may be compared with a file's mtime, since a server's clock is not ours."""
    try:
        os.utime(touched)
        return touched.stat().st_mtime
    except OSError:
        return time.time()
