"""An artifact into the store: resolved, fetched once however many ask for it, verified, published whole.

`fetch` is what the command, the init container and the agent call. A tree that is there already costs one look at the disk.
"""

import time
from typing import Final

from inference_cache_artifacts.errors import NoSpace, TimedOut
from inference_cache_artifacts.means import OWN, Means
from inference_cache_artifacts.progress import Progress
from inference_cache_artifacts.request import Request
from inference_cache_artifacts.store import leases, trees
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree

LITTLE_BYTES: Final = 1 << 20
"""For a lease and a journal; how much the files need, the next attempt asks for."""


def fetch(request: Request, store: Store, progress: Progress, means: Means = OWN) -> Tree:
    """The tree of `request`, published. Raises ArtifactError; then there is no tree, and what was fetched stays for the next time."""
    name = request.tree_name
    found = trees.find(store, name)
    if found is not None:
        return found
    try:
        return _fetched(request, store, progress, means)
    except NoSpace:
        if not _made_room(request, store, means):
            raise
    return _fetched(request, store, progress, means)


def _fetched(request: Request, store: Store, progress: Progress, means: Means) -> Tree:
    store.prepare()
    name = request.tree_name
    until = _Until(request, store, progress, means)
    with leases.waiting(store, name, until=until) as lease:
        found = trees.find(store, name)
        if lease is None or found is not None:
            return found or _fetched(request, store, progress, means)
        # Imported when there is something to fetch: a warm start must not pay for it.
        from inference_cache_artifacts.bringing import Bringing  # noqa: PLC0415

        return Bringing(request, store, progress, means, lease, until.began).bring()


class _Until:
    """Asked at every look at the lease: whether the tree came from somebody else."""

    def __init__(self, request: Request, store: Store, progress: Progress, means: Means) -> None:
        self.began = time.monotonic()
        self._limit = request.limits.timeout_seconds
        self._store = store
        self._name = request.tree_name
        self._progress = progress
        self._check = means.check
        self._looks = 0

    def __call__(self) -> bool:
        self._check()
        self._looks += 1
        # Whoever gets the lease at once is asked two times.
        if self._looks == 3:
            self._progress.noted("waiting", tree=self._name)
        if self._limit is not None and time.monotonic() - self.began > self._limit:
            raise TimedOut(f"it took longer than {self._limit:g} s, waiting for another process that fetches the same")
        return trees.find(self._store, self._name) is not None


def _made_room(request: Request, store: Store, means: Means) -> bool:
    """On a disk so full that not even a lease has room. What has begun to come is not given up for it."""
    name = request.tree_name
    if any(store.partials.glob(f"{name}*")):
        return False
    return means.make_room(store, {*request.keep, name}, max(request.limits.reserve_bytes, LITTLE_BYTES)) > 0
