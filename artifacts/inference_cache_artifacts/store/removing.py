"""Takes trees and blobs away, so that nobody ever sees half of one. Called by `collecting` alone."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from inference_cache_artifacts.errors import ArtifactError
from inference_cache_artifacts.store import disk, litter, locking, pending, trees, using
from inference_cache_artifacts.store.layout import MARKER, Store
from inference_cache_artifacts.store.rounds import Round, own_bytes


def remove_trees(this: Round) -> None:
    for name in sorted(trees.names(this.store), key=lambda name: using.last_used(this.store, name)):
        if this.is_enough():
            return
        if name not in this.keep and not _is_busy(this, name):
            _remove_tree(this, name)


def _is_busy(this: Round, name: str) -> bool:
    return bool(using.users(this.store, name)) or this.is_fetched(name) or this.is_needed(name)


def _remove_tree(this: Round, name: str) -> None:
    blobs = _blobs_of(this.store, name)
    with locking.unmarked(this.store):
        gone = None if using.users(this.store, name) else litter.take_away(this.store, this.store.tree(name), name)
    if gone is None or _put_back(this, gone, name):
        return
    disk.sync(this.store.trees)
    this.done.freed += sum(own_bytes(path) for path in _walk(gone))
    litter.bury(this.store, gone)
    this.done.trees.append(name)
    remove_blobs(this, blobs)


def _put_back(this: Round, gone: Path, name: str) -> bool:
    """Who marks a tree and finds it afterwards relies on it: from another node such a mark may have come since we looked.

    So does who is seen by `is_needed`, and found it before it was taken away.
    """
    if not using.users(this.store, name) and not this.is_needed(name):
        return False
    try:
        _clear(this.store, name)
        gone.rename(this.store.tree(name))
    except OSError as error:
        # Fetched again in this very moment: that one is as good.
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT}:
            raise
        return False
    return True


def _clear(store: Store, name: str) -> None:
    """Kubelet makes empty folders where it mounts what is not there. Raises OSError."""
    target = store.tree(name)
    with suppress(FileNotFoundError):
        if not (target / MARKER).exists() and not any(_walk(target)):
            shutil.rmtree(target)


def _blobs_of(store: Store, name: str) -> list[Path]:
    """Of a damaged tree they are found later, among all."""
    try:
        tree = trees.find(store, name)
        return [] if tree is None else [store.blob(file.sha256) for file in tree.manifest().files]
    except ArtifactError:
        return []


def all_blobs(store: Store) -> Iterator[Path]:
    for folder in disk.listed(store.blobs):
        yield from (store.blobs / folder / each for each in disk.listed(store.blobs / folder))


def remove_blobs(this: Round, paths: Iterable[Path]) -> None:
    """Those that no tree links and no fetch counts on."""
    spared = pending.hashes(this.store)
    for path in paths:
        freed = own_bytes(path)
        if freed and path.name not in spared:
            path.unlink(missing_ok=True)
            this.done.freed += freed
            this.done.blobs += 1


def _walk(folder: Path) -> Iterator[Path]:
    for parent, _, files in os.walk(folder):
        yield from (Path(parent) / file for file in files)
