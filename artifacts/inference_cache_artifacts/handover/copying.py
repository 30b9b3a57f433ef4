"""A tree of the agent's into a store of this pod's: copied, and not hashed again. Called by `handing`.

The agent has verified its files, and blobs are never written again: a copy over the node's own network is trusted as much as its disk.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from inference_cache_artifacts.handover.contact import Contact
from inference_cache_artifacts.handover.patience import AWAY_SECONDS, Deadline
from inference_cache_artifacts.handover.protocol import FILE
from inference_cache_artifacts.handover.receiving import Receiving
from inference_cache_artifacts.manifest import File, Manifest
from inference_cache_artifacts.means import OWN
from inference_cache_artifacts.progress import Progress
from inference_cache_artifacts.request import Request
from inference_cache_artifacts.store import blobs, disk, leases, pending, space, trees
from inference_cache_artifacts.store.building import BlobGone
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.leases import Lease
from inference_cache_artifacts.store.publishing import publish
from inference_cache_artifacts.store.trees import Tree

LEASE_SECONDS: Final = 1.0
TRIES: Final = 2


class Copying:
    """Of the tree that `request` names, by the agent's own manifest."""

    def __init__(
        self, contact: Contact, request: Request, manifest: Manifest, store: Store, progress: Progress, deadline: Deadline
    ) -> None:
        self._contact = contact
        self._name = request.tree_name
        self._request = request
        self._manifest = manifest
        self._store = store
        self._progress = progress
        self._deadline = deadline
        self._lease_seen = time.monotonic()

    def copy(self) -> Tree:
        """Published; by another process, if one is at it. Raises Away, ArtifactError."""
        self._store.prepare()
        while True:
            with leases.waiting(self._store, self._name, until=self._is_there) as lease:
                if lease is not None:
                    return self._brought(lease)
            found = trees.find(self._store, self._name)
            if found is not None:
                return found

    def _is_there(self) -> bool:
        self._deadline.check("another process fetches the same")
        return trees.find(self._store, self._name) is not None

    def _brought(self, lease: Lease) -> Tree:
        """Once more where a collector of another node took away what we counted on."""
        for _ in range(TRIES):
            with suppress(BlobGone):
                return self._brought_once(lease)
        return self._brought_once(lease)

    def _brought_once(self, lease: Lease) -> Tree:
        # Announced before anything is looked for: from then on no collector takes it away.
        pending.announce(self._store, self._name, self._manifest)
        self._forget_partials()
        wanted = self._missing()
        already = self._manifest.size - sum(file.size for file in wanted)
        self._progress.planned(len(self._manifest.files), self._manifest.size, already)
        self._make_room(wanted)
        self._receive(wanted, lease)
        lease.check()
        tree = publish(self._store, self._name, self._manifest, sources=[self._contact.url + FILE.format(tree=self._name, path="")])
        pending.withdraw(self._store, self._name)
        return tree

    def _missing(self) -> list[File]:
        """Each content once, large files first: the small ones fill the gaps in the end. What is empty need not come."""
        by_content = {file.sha256: file for file in self._manifest.files if file.size}
        return sorted(
            (file for file in by_content.values() if not blobs.has(self._store, file.sha256, file.size)), key=lambda file: -file.size
        )

    def _make_room(self, wanted: Sequence[File]) -> None:
        """Before the first byte. Raises NoSpace."""
        needed, reserve = sum(file.size for file in wanted), self._request.limits.reserve_bytes
        if wanted and space.free_bytes(self._store.root) < needed + reserve:
            OWN.make_room(self._store, {*self._request.keep, self._name}, needed + reserve)
        space.check(self._store.root, needed, reserve, files=len(wanted))

    def _receive(self, wanted: Sequence[File], lease: Lease) -> None:
        limits = self._request.limits
        receiving = Receiving(self._contact, self._store, self._name, self._progress, limits.bytes_per_second)
        receiving.run(wanted, limits.connections, AWAY_SECONDS, lambda: self._watch(lease))

    def _watch(self, lease: Lease) -> None:
        self._deadline.check("files come from the agent")
        now = time.monotonic()
        if now - self._lease_seen > LEASE_SECONDS:
            self._lease_seen = now
            lease.check()

    def _forget_partials(self) -> None:
        """Of one that was killed, or read the sources: each file is begun again."""
        for left in self._store.partials.glob(f"{self._name}-*"):
            with disk.disk_errors(left):
                left.unlink(missing_ok=True)
