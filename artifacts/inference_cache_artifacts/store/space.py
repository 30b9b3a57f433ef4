"""Whether it will fit, asked before the first byte."""

import os
from dataclasses import dataclass
from pathlib import Path

from inference_cache_artifacts.errors import NoSpace
from inference_cache_artifacts.store import disk


@dataclass(frozen=True, slots=True)
class Room:
    """Of a file system, in bytes, for who is not root."""

    free: int
    total: int
    """Used and free together, without what is kept for root."""
    inodes: int | None
    """Free ones; None where the file system does not count them."""

    @property
    def used_share(self) -> float:
        return 1 - self.free / self.total if self.total else 1.0


def room(path: Path) -> Room:
    """Raises DiskFailed."""
    with disk.disk_errors(path):
        found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    return Room(free, used + free, found.f_favail if found.f_files else None)


def free_bytes(path: Path) -> int:
    """Raises DiskFailed."""
    return room(path).free


def check(path: Path, needed: int, reserve_bytes: int = 0, *, files: int = 0) -> None:
    """`needed` bytes and `files` new files fit, and `reserve_bytes` stay free. Raises NoSpace, DiskFailed."""
    found = room(path)
    if found.free < needed + reserve_bytes:
        kept = f" and {reserve_bytes} that stay free" if reserve_bytes else ""
        raise NoSpace(f"{path}: {needed} bytes are needed{kept}, {found.free} are free")
    if found.inodes is not None and found.inodes < files:
        raise NoSpace(f"{path}: {files} new files are needed, {found.inodes} are free")
