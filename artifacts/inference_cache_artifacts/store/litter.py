"""What killed processes left behind, as far as it is certain that nobody works on it."""

import fcntl
import os
import secrets
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from inference_cache_artifacts.store import disk, lease_files, locking, using
from inference_cache_artifacts.store.layout import GONE, TEMPORARY, Store

_OLD_SECONDS: Final = 600.0


def sweep(store: Store, now: float | None = None, *, locked: bool = False) -> None:
    """Removes half-made and half-removed trees, leases of the dead, and temporary files. Raises DiskFailed.

    `locked`: the caller holds the collector's lock.
    """
    now = disk.clock(store.lock) if now is None else now
    with disk.disk_errors(store.root):
        _bury_all(store, locked=locked)
        for path in _hidden(store.trees, TEMPORARY):
            _remove_unfinished(store, path, now)
        for each in disk.listed(store.leases):
            lease_files.remove_dead(store.leases / each, now)
        for path in _hidden(store.pending, TEMPORARY):
            _remove_old(path, now)


def _bury_all(store: Store, *, locked: bool) -> None:
    """Not while a collector is at work, who may still put back what it took away."""
    with nullcontext(True) if locked else locking.alone(store, wait_seconds=0.0) as is_alone:
        for path in _hidden(store.trees, GONE) if is_alone else ():
            bury(store, path)


def take_away(store: Store, folder: Path, name: str) -> Path | None:
    """With one rename it counts no more, whoever goes on reading it; None: it is gone already. Raises OSError."""
    gone = store.trees / f"{GONE}{name}-{secrets.token_hex(8)}"
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return None
    return gone


def bury(store: Store, gone: Path) -> None:
    """Raises DiskFailed."""
    name = _name_of(gone, GONE)
    if not store.tree(name).exists():
        using.forget(store, name)
    shutil.rmtree(gone, ignore_errors=True)


def _remove_unfinished(store: Store, folder: Path, now: float) -> None:
    name = _name_of(folder, TEMPORARY)
    if not lease_files.is_held(store.leases, name, now) and not _is_locked(folder):
        gone = take_away(store, folder, name)
        if gone is not None:
            shutil.rmtree(gone, ignore_errors=True)


def _is_locked(folder: Path) -> bool:
    """By its maker, while that lives under this kernel."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return locking.try_lock(fd, fcntl.LOCK_EX) is False
    finally:
        os.close(fd)


def _remove_old(path: Path, now: float) -> None:
    try:
        if now - path.stat().st_mtime > _OLD_SECONDS:
            path.unlink()
    except FileNotFoundError:
        return


def _hidden(folder: Path, prefix: str) -> list[Path]:
    return [folder / name for name in disk.listed(folder) if name.startswith(prefix)]


def _name_of(path: Path, prefix: str) -> str:
    return path.name.removeprefix(prefix).rpartition("-")[0]
