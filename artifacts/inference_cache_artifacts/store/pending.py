"""What fetches in progress count on: a file for each, one SHA-256 a line. The collector spares these blobs."""

import re
from collections.abc import Iterator
from typing import Final

from inference_cache_artifacts.manifest import Manifest
from inference_cache_artifacts.store import disk, locking
from inference_cache_artifacts.store.layout import Store

_LINE: Final = re.compile(r"[0-9a-f]{64}")


def announce(store: Store, name: str, manifest: Manifest) -> None:
    """From now on no collector of this node removes what `manifest` names: ask `blobs.has` only after. Raises NoSpace, DiskFailed."""
    path = store.pending / name
    text = "".join(f"{file.sha256}\n" for file in manifest.files)
    with locking.shared(store), disk.disk_errors(path):
        disk.replace(path, text.encode())


def announce_also(store: Store, name: str, sha256: str) -> None:
    """One more, known only now that it was fetched: before it is adopted. Raises NoSpace, DiskFailed."""
    path = store.pending / name
    with locking.shared(store), disk.disk_errors(path), path.open("a") as file:
        file.write(f"{sha256}\n")


def withdraw(store: Store, name: str) -> None:
    """The tree is published, or nobody will go on with it. Raises DiskFailed."""
    path = store.pending / name
    with disk.disk_errors(path):
        path.unlink(missing_ok=True)


def names(store: Store) -> list[str]:
    """Of fetches announced and not withdrawn, whether anybody is at it or not. Raises DiskFailed."""
    with disk.disk_errors(store.pending):
        return [name for name in disk.listed(store.pending) if not name.startswith(".")]


def hashes(store: Store) -> frozenset[str]:
    """All that is announced. Raises DiskFailed."""
    return frozenset(sha256 for name in names(store) for sha256 in _read(store, name))


def _read(store: Store, name: str) -> Iterator[str]:
    """A line cut off by a kill names nothing."""
    path = store.pending / name
    with disk.disk_errors(path):
        try:
            text = path.read_text("ascii", "replace")
        except FileNotFoundError:
            return
    yield from (line for line in text.splitlines() if _LINE.fullmatch(line))
