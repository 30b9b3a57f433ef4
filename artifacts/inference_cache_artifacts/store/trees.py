"""Published trees: `trees/<name>/files` and the marker beside it, which came into place with one rename."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inference_cache_artifacts.errors import DiskFailed
from inference_cache_artifacts.manifest import Manifest, read_manifest
from inference_cache_artifacts.store import blobs, disk
from inference_cache_artifacts.store.layout import FILES, MARKER, Store

_MAX_HEAD: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole, verified artifact on the disk; whoever goes on using it marks it (`using.use`)."""

    name: str
    files: Path
    """The folder to mount."""
    digest: str
    """Of its manifest."""
    size: int
    """Bytes."""
    count: int
    """Number of files."""
    sources: tuple[str, ...]
    """Where it came from, without credentials."""

    def manifest(self) -> Manifest:
        """Read from the disk each time: its length grows with the number of files. Raises DiskFailed, BadManifest."""
        path = self.files.parent / MARKER
        with disk.disk_errors(path):
            text = path.read_bytes()
        return read_manifest(_parsed(path, text))


def find(store: Store, name: str) -> Tree | None:
    """Opens one file and reads its first line, whatever the size of the tree. Raises DiskFailed."""
    path = store.tree(name) / MARKER
    with disk.disk_errors(path):
        try:
            with path.open("rb") as file:
                line = file.readline(_MAX_HEAD)
        except FileNotFoundError:
            return None
    head = _parsed(path, line.rstrip(b",\n") + b"}")
    try:
        return Tree(name, path.parent / FILES, head["digest"], head["size"], head["count"], tuple(head["sources"]))
    except (KeyError, TypeError):
        raise DiskFailed(f"{path}: is damaged") from None


def names(store: Store) -> list[str]:
    """Of all trees, published ones and, where somebody broke them, others. Raises DiskFailed."""
    with disk.disk_errors(store.trees):
        return [name for name in disk.listed(store.trees) if not name.startswith(".")]


def check(store: Store, name: str, *, hashes: bool = False) -> tuple[str, ...]:
    """Paths that are not as the manifest says, or not in it; `files` itself where there is no tree.

    Compares sizes; with `hashes` reads every byte. Raises DiskFailed, BadManifest.
    """
    tree = find(store, name)
    if tree is None:
        return (FILES,)
    promised = {file.path: file for file in tree.manifest().files}
    found = set(_walk(tree.files))
    wrong = {path for path in found & promised.keys() if _size(tree.files / path) != promised[path].size}
    if hashes:
        wrong |= {path for path in found & promised.keys() if blobs.hash_of(tree.files / path) != promised[path].sha256}
    return tuple(sorted(wrong | (found ^ promised.keys())))


def _walk(folder: Path) -> Iterator[str]:
    for parent, _, files in os.walk(folder):
        yield from ((Path(parent) / file).relative_to(folder).as_posix() for file in files)


def _size(path: Path) -> int | None:
    """A link to elsewhere is none of ours."""
    with disk.disk_errors(path):
        return None if path.is_symlink() else path.stat().st_size


def _parsed(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise DiskFailed(f"{path}: is damaged") from None
