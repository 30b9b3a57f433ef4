"""One fetch by the holder of its lease. Called by `fetching` alone."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final

from inference_cache_artifacts.errors import (
    ArtifactError,
    BadManifest,
    BadRequest,
    Changed,
    Corrupt,
    Forbidden,
    Missing,
    TimedOut,
    Unreachable,
)
from inference_cache_artifacts.manifest import File, Manifest, manifest_of
from inference_cache_artifacts.means import Means
from inference_cache_artifacts.progress import Progress
from inference_cache_artifacts.request import Request
from inference_cache_artifacts.resolving import Expected, Resolved, resolve
from inference_cache_artifacts.source import Source
from inference_cache_artifacts.store import blobs, disk, partials, pending, space
from inference_cache_artifacts.store.building import BlobGone
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.lease_files import boot_id
from inference_cache_artifacts.store.leases import Lease
from inference_cache_artifacts.store.partials import Header
from inference_cache_artifacts.store.publishing import publish
from inference_cache_artifacts.store.trees import Tree
from inference_cache_artifacts.transfer.mirrors import Mirrors
from inference_cache_artifacts.transfer.transferring import Transfer
from inference_cache_artifacts.transfer.wanted import Fetched, Wanted

OF_A_MIRROR: Final = (BadManifest, BadRequest, Changed, Corrupt, Forbidden, Missing, Unreachable)
DONE: Final = ".done"
"""Beside where a file grew: its SHA-256, since it was whole and right."""
LEASE_SECONDS: Final = 1.0
TRIES: Final = 2


class Bringing:
    def __init__(self, request: Request, store: Store, progress: Progress, means: Means, lease: Lease, began: float) -> None:
        self._request = request
        self._store = store
        self._progress = progress
        self._means = means
        self._name = request.tree_name
        self._lease = lease
        self._begun = began
        """By the monotonic clock: what was waited for the lease counts."""
        self._lease_seen = time.monotonic()
        self._announced = False
        """All content is known beforehand, and told to collectors."""
        self._found: dict[str, str] = {}
        """SHA-256 by identity, of what has been fetched in this run."""

    def bring(self) -> Tree:
        if self._lease.taken_over == "silent":
            partials.copied(self._store.partials, self._name)
        with ExitStack() as stack:
            sources = [stack.enter_context(closing(self._means.open(url, self._request.options))) for url in self._request.sources]
            tree = self._from_any(sources)
        self._forget_partials()
        return tree

    def _from_any(self, sources: list[Source]) -> Tree:
        """Without a manifest only one mirror's files are known at a time. Raises what kept the first from it."""
        first: ArtifactError | None = None
        while sources:
            resolved = resolve(self._request, sources, self._wait)
            try:
                return self._brought(resolved)
            except OF_A_MIRROR as error:
                first = first or error
            sources = [each for each in sources if each not in resolved.mirrors]
        assert first is not None
        raise first

    def _brought(self, resolved: Resolved) -> Tree:
        """Once more where a collector of another node took away what we counted on."""
        for _ in range(TRIES):
            with suppress(BlobGone):
                return self._brought_once(resolved)
        return self._brought_once(resolved)

    def _brought_once(self, resolved: Resolved) -> Tree:
        # Announced before anything is looked for: from then on no collector takes it away.
        self._announced = resolved.manifest is not None
        if resolved.manifest is not None:
            pending.announce(self._store, self._name, resolved.manifest)
        wanted = self._missing(resolved)
        total = sum(file.size for file in resolved.files)
        present = total - sum(file.size for file in wanted)
        self._progress.planned(len(resolved.files), total, present)
        self._make_room(wanted)
        mirrors = Mirrors(resolved.mirrors)
        for number, listed in enumerate(resolved.listings):
            mirrors.learn(number, listed or ())
        transfer = Transfer(mirrors, self._progress, self._keep, self._request.limits.bytes_per_second)
        transfer.run(wanted, self._request.limits.connections, self._watch)
        self._lease.check()
        return self._published(resolved)

    def _published(self, resolved: Resolved) -> Tree:
        manifest = resolved.manifest or manifest_of(File(each.path, each.size, self._found[each.identity]) for each in resolved.files)
        tree = publish(self._store, self._name, manifest, sources=[source.url for source in resolved.mirrors])
        pending.withdraw(self._store, self._name)
        return tree

    def _missing(self, resolved: Resolved) -> list[Wanted]:
        """Each content once, large files first: the small ones fill the gaps in the end."""
        by_identity = {each.identity: each for each in resolved.files if not self._has(each, resolved.manifest)}
        return [self._wanted(each) for each in sorted(by_identity.values(), key=lambda each: -each.size)]

    def _has(self, expected: Expected, manifest: Manifest | None) -> bool:
        if manifest is not None:
            return blobs.has(self._store, expected.identity, expected.size)
        return bool(expected.checksums) and self._recalled(expected)

    def _wanted(self, expected: Expected) -> Wanted:
        boot = "" if expected.checksums else boot_id()
        return Wanted(
            expected.path, expected.size, expected.checksums, self._data(expected), Header(expected.size, expected.identity, boot)
        )

    def _data(self, expected: Expected) -> Path:
        key = hashlib.sha256(expected.identity.encode()).hexdigest()[:16]
        return self._store.partials / f"{self._name}-{key}{partials.DATA}"

    def _make_room(self, wanted: Sequence[Wanted]) -> None:
        """Before the first byte. What is in partial files already is on the disk. Raises NoSpace."""
        there = sum(each.data.stat().st_blocks * 512 for each in wanted if each.data.exists())
        needed = max(0, sum(each.size for each in wanted) - there)
        reserve = self._request.limits.reserve_bytes
        if wanted and space.free_bytes(self._store.root) < needed + reserve:
            self._means.make_room(self._store, {*self._request.keep, self._name}, needed + reserve)
        space.check(self._store.root, needed, reserve, files=len(wanted))

    def _keep(self, fetched: Fetched) -> None:
        """By any thread."""
        self._found[fetched.wanted.header.identity] = fetched.sha256
        if not self._announced:
            self._remember(fetched)
        if not self._announced:
            pending.announce_also(self._store, self._name, fetched.sha256)
        blobs.adopt(self._store, fetched.wanted.data, fetched.sha256)
        fetched.wanted.data.with_suffix(partials.JOURNAL).unlink(missing_ok=True)

    def _remember(self, fetched: Fetched) -> None:
        """Without a manifest only this says, after a kill, which blob it became."""
        path = fetched.wanted.data.with_suffix(DONE)
        with disk.disk_errors(path):
            disk.replace(path, fetched.sha256.encode())

    def _recalled(self, expected: Expected) -> bool:
        try:
            sha256 = self._data(expected).with_suffix(DONE).read_text("ascii", "replace")
        except FileNotFoundError:
            return False
        if not blobs.has(self._store, sha256, expected.size):
            return False
        self._found[expected.identity] = sha256
        return True

    def _forget_partials(self) -> None:
        """Of other mirrors, that were given up."""
        for left in self._store.partials.glob(f"{self._name}-*"):
            left.unlink(missing_ok=True)

    def _watch(self) -> None:
        self._means.check()
        now = time.monotonic()
        limit = self._request.limits.timeout_seconds
        if limit is not None and now - self._begun > limit:
            raise TimedOut(f"it took longer than {limit:g} s")
        if now - self._lease_seen > LEASE_SECONDS:
            self._lease_seen = now
            self._lease.check()

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self._watch()
