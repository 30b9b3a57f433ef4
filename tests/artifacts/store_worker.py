"""A process that fetches trees and uses them, or one that removes all it may: started beside each other by a test."""

import random
import sys
from pathlib import Path

from tests.artifacts.stores import SOURCES, manifest_for, sha256

from inference_cache_artifacts.store import blobs, collecting, leases, pending, trees, using
from inference_cache_artifacts.store.building import BlobGone
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.publishing import publish

NAMES = [f"{number:032x}" for number in range(3)]
SHARED = b"s" * 9000


def main() -> None:
    root, role, rounds = sys.argv[1:]
    store = Store(Path(root))
    for number in range(int(rounds)):
        if role == "collect":
            collecting.collect(store, keep=(), limits=collecting.Limits(needed_bytes=1 << 60))
        else:
            fetch_and_use(store, random.choice(NAMES), f"{role}-{number}")


def fetch_and_use(store: Store, name: str, holder: str) -> None:
    """Fails where a tree it relies on is not whole."""
    tree = using.use(store, name, holder)
    while tree is None:
        fetch(store, name)
        tree = using.use(store, name, holder)
    assert trees.check(store, name, hashes=True) == (), name
    using.release(store, name, holder)


def fetch(store: Store, name: str) -> None:
    contents = {"shared": SHARED, "own": name.encode(), "empty": b""}
    with leases.waiting(store, name, until=lambda: trees.find(store, name) is not None) as lease:
        if lease is None:
            return
        pending.announce(store, name, manifest_for(contents))
        bring(store, name, contents)
        try:
            publish(store, name, manifest_for(contents), sources=SOURCES)
        except BlobGone:
            sys.exit("a blob that was announced is gone")
        pending.withdraw(store, name)


def bring(store: Store, name: str, contents: dict[str, bytes]) -> None:
    for data in contents.values():
        if data and not blobs.has(store, sha256(data), len(data)):
            partial = store.partials / f"{name}-{sha256(data)[:16]}.data"
            partial.write_bytes(data)
            blobs.adopt(store, partial, sha256(data))


if __name__ == "__main__":
    main()
