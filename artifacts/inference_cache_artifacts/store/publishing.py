"""How a tree comes into place: built aside, renamed whole."""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from inference_cache_artifacts.errors import DiskFailed
from inference_cache_artifacts.manifest import Manifest
from inference_cache_artifacts.store import building, disk, locking, trees
from inference_cache_artifacts.store.layout import GONE, MARKER, TEMPORARY, Store
from inference_cache_artifacts.store.trees import Tree

_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY})
_TRIES: Final = 3


def publish(store: Store, name: str, manifest: Manifest, *, sources: Sequence[str]) -> Tree:
    """The tree of `manifest`, on the disk; where one of that name came before, that one.

    All blobs are there already. Raises BlobGone, Corrupt, NoSpace, DiskFailed.
    """
    with locking.shared(store):
        for _ in range(_TRIES):
            tree = trees.find(store, name) or _build(store, name, manifest, tuple(sources))
            if tree is not None:
                return tree
    raise DiskFailed(f"{store.tree(name)}: others remove it as soon as it is made")


def _build(store: Store, name: str, manifest: Manifest, sources: tuple[str, ...]) -> Tree | None:
    """None: somebody took away what we were making, or the place it goes to is taken by a tree that vanished meanwhile."""
    with disk.disk_errors(store.tree(name)), _temporary(store, name) as folder:
        try:
            building.fill(store, folder, manifest, sources)
            _place(store, folder, name)
        except FileNotFoundError:
            if folder.exists():
                raise
            return None
    return trees.find(store, name)


@contextmanager
def _temporary(store: Store, name: str) -> Iterator[Path]:
    """Locked as long as its maker lives, so that whoever removes litter on this node knows; gone at the end, if not renamed."""
    folder = store.trees / f"{TEMPORARY}{name}-{secrets.token_hex(8)}"
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    try:
        locking.try_lock(fd, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(fd)
        shutil.rmtree(folder, ignore_errors=True)


def _place(store: Store, folder: Path, name: str) -> None:
    """What is there without a marker was broken by hand, and gives way."""
    target = store.tree(name)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        if not (target / MARKER).exists():
            _set_aside(store, target)
            folder.rename(target)
    disk.sync(store.trees)


def _set_aside(store: Store, broken: Path) -> None:
    gone = store.trees / f"{GONE}{broken.name}-{secrets.token_hex(8)}"
    broken.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
