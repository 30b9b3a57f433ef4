"""Stores with something in them, and disks that are small or read-only."""

import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from inference_cache_artifacts.manifest import File, Manifest, manifest_of
from inference_cache_artifacts.store import blobs, trees
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.publishing import publish
from inference_cache_artifacts.store.trees import Tree

NAME = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
SOURCES = ("s3://models/llama",)
CONTENTS = {"config.json": b"{}", "model/weights-1": b"w" * 5000, "model/weights-2": b"v" * 3000, "empty/marker": b""}


def new_store(root: Path) -> Store:
    store = Store(root)
    store.prepare()
    return store


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest_for(contents: Mapping[str, bytes]) -> Manifest:
    return manifest_of(File(path, len(data), sha256(data)) for path, data in contents.items())


def adopt(store: Store, data: bytes) -> Path:
    partial = store.partials / f"{NAME}-{sha256(data)[:16]}.data"
    partial.write_bytes(data)
    return blobs.adopt(store, partial, sha256(data))


def published(store: Store, contents: Mapping[str, bytes] = CONTENTS, name: str = NAME) -> Tree:
    for data in contents.values():
        if data:
            adopt(store, data)
    return publish(store, name, manifest_for(contents), sources=SOURCES)


def is_whole(store: Store, name: str = NAME) -> bool:
    return trees.find(store, name) is not None and trees.check(store, name, hashes=True) == ()


def litter(store: Store) -> list[str]:
    """What should not be there when nobody is at work."""
    folders = (store.trees, store.leases, store.pending, store.partials)
    return sorted(path.name for folder in folders for path in folder.iterdir() if folder != store.trees or path.name.startswith("."))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, in memory. Needs the right to mount."""
    folder.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=60)


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.fail(f"this test needs the right to mount a small disk (run it as root): {done.stderr}")
