"""Who uses a tree, and when it was used last. Marks are files: they outlive the process that made them."""

import math
import re
from pathlib import Path
from typing import Final

from inference_cache_artifacts.errors import BadRequest, DiskFailed
from inference_cache_artifacts.store import disk, locking, trees
from inference_cache_artifacts.store.layout import MARKER, Store
from inference_cache_artifacts.store.trees import Tree

HOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_LAST: Final = ".last"
_TRIES: Final = 5


def use(store: Store, name: str, holder: str) -> Tree | None:
    """The tree, marked; None where it is not there, and then nothing is marked. Raises BadRequest, NoSpace, DiskFailed.

    In this order it is safe: the collector looks for marks again after it has taken a tree away, and puts it back.
    """
    mark_used(store, name, holder)
    tree = trees.find(store, name)
    if tree is None:
        release(store, name, holder)
    return tree


def mark_used(store: Store, name: str, holder: str) -> None:
    """`holder` (a pod's UID, say) uses the tree from now until it is released; safe to repeat. Raises BadRequest, NoSpace, DiskFailed."""
    folder = store.used / name
    path = folder / _checked(holder)
    with locking.marking(store), disk.disk_errors(path):
        for _ in range(_TRIES):
            try:
                return _mark(folder, path)
            except FileNotFoundError:
                # The collector removed the folder, which was empty, between two of our steps.
                continue
    raise DiskFailed(f"{folder}: is removed again and again")


def release(store: Store, name: str, holder: str) -> None:
    """Safe to repeat. Raises BadRequest, DiskFailed."""
    folder = store.used / name
    path = folder / _checked(holder)
    with disk.disk_errors(path):
        try:
            path.unlink()
            (folder / _LAST).touch()
        except FileNotFoundError:
            return


def users(store: Store, name: str) -> frozenset[str]:
    """Raises DiskFailed."""
    with disk.disk_errors(store.used / name):
        return frozenset(each for each in disk.listed(store.used / name) if not each.startswith("."))


def marked_at(store: Store, name: str, holder: str) -> float:
    """When `holder` marked it, in seconds by the file system's clock; infinite where it has not. Raises BadRequest, DiskFailed."""
    return _mtime(store.used / name / _checked(holder)) or math.inf


def last_used(store: Store, name: str) -> float:
    """Seconds by the file system's clock; a tree never used counts from its publication, and one that is gone from 0. Raises DiskFailed."""
    return max(_mtime(store.used / name / _LAST), _mtime(store.tree(name) / MARKER))


def forget(store: Store, name: str) -> None:
    """The tree is gone; a mark that came meanwhile stays. Raises DiskFailed."""
    folder = store.used / name
    with disk.disk_errors(folder):
        (folder / _LAST).unlink(missing_ok=True)
        if folder.is_dir() and not disk.listed(folder):
            _remove_empty(folder)


def _mark(folder: Path, path: Path) -> None:
    disk.make_folder(folder)
    new = not path.exists()
    path.touch()
    (folder / _LAST).touch()
    if new:
        disk.sync(folder)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        # Somebody marks it just now, or did this before us: both are fine.
        return


def _mtime(path: Path) -> float:
    with disk.disk_errors(path):
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            return 0.0


def _checked(holder: str) -> str:
    if not HOLDER.fullmatch(holder):
        raise BadRequest(f"{holder!r} cannot be the name of a user of trees")
    return holder
