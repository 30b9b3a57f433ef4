"""Memory in front of the shared store: what one replica stored, all find; what this replica used lately costs no round trip.

Memory alone decides by similarity: it takes in what other replicas store, as the stream of changes tells, and at the start what is
there. The shared store is asked where memory has nothing. Entries whose epochs are not known at present are in neither.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from inference_cache_contract.entry import Entry
from inference_cache_contract.epochs import flushed, reachable
from inference_cache_contract.keyspace import scope_and_digest
from inference_cache_sidecar.index.protocol import Neighbour, Vector
from inference_cache_sidecar.shared.changes import Change
from inference_cache_sidecar.shared.entries import Found
from inference_cache_sidecar.shared.scanning import ahead, batches
from inference_cache_sidecar.shared.tier import SharedTier
from inference_cache_sidecar.store.deletions import Deletions
from inference_cache_sidecar.store.memory import MemoryStore
from inference_cache_sidecar.store.protocol import StoreStats

TAKEN_AT_ONCE: Final = 25
"""Entries decoded and indexed in one go: some 3 ms of the loop's time."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Warming:
    """How far taking in the shared store's entries is."""

    scanned: int = 0
    loaded: int = 0
    done: bool = False


class TieredStore:
    """Implements `EntryStore`. `version` is the model's, whose entries alone are taken in."""

    def __init__(
        self, memory: MemoryStore, shared: SharedTier, version: str, clock: Callable[[], float], deleted: Callable[[bytes], None]
    ) -> None:
        """`deleted` is told the digest of an entry that another replica deleted."""
        self._deleted = deleted
        self._memory = memory
        self._shared = shared
        self._pattern = shared.keys.entries_of(version)
        self._clock = clock
        self._deletions = Deletions()
        self.warming = Warming()

    async def get(self, scope: bytes, digest: bytes, *, stale_seconds: float = 0.0) -> Entry | None:
        entry = await self._memory.get(scope, digest, stale_seconds=stale_seconds)
        return entry or await self._fetched(scope, digest, stale_seconds)

    async def peek(self, scope: bytes, digest: bytes) -> Entry | None:
        return await self._memory.peek(scope, digest) or await self._fetched(scope, digest, 0.0)

    def still(self, entry: Entry) -> bool:
        return self._memory.still(entry)

    async def put(self, entry: Entry, vector: Vector | None) -> bool:
        kept = await self._memory.put(entry, vector)
        key = await self._shared.entries.put(entry, vector)
        if key is not None and vector is not None:
            await self._shared.changes.tell(Change("stored", key))
        return kept or key is not None

    async def delete(self, digest: bytes) -> bool:
        """From everywhere. Raises StoreError if that cannot be said."""
        keys = await self._keys_under(digest)
        here = await self._forget(digest)
        there = await self._shared.hot.delete_many(keys)
        # Once more: somebody may have read it in between.
        await self._forget(digest)
        await self._shared.changes.tell(*(Change("deleted", key) for key in keys))
        return here or there > 0

    async def holds(self, digest: bytes) -> bool:
        if await self._memory.holds(digest):
            return True
        return any(found is not None for found in await self._shared.entries.get_many(await self._keys_under(digest)))

    async def neighbours(self, scope: bytes, vector: Vector, limit: int) -> list[Neighbour]:
        return await self._memory.neighbours(scope, vector, limit)

    async def count(self, name: str) -> int:
        """In the shared store. Raises StoreError."""
        return await self._shared.purger.count(name)

    async def purge(self, name: str) -> int:
        """How many the shared store had. Raises StoreError."""
        await self._memory.purge(name)
        return await self._shared.purger.purge(name)

    def stats(self) -> StoreStats:
        """Of memory."""
        return self._memory.stats()

    async def load(self) -> None:
        """Take in what the shared store has with a vector that can be compared here, once one can. Raises StoreError."""
        if self._shared.values.manifest is None:
            return
        warming = self.warming = Warming()
        async with aclosing(ahead(self._fetches())) as fetches:
            async for mark, fetched in fetches:
                warming.scanned += len(fetched)
                warming.loaded += await self._take_in(fetched, mark)
        warming.done = True
        _log.info("%d of %d entries of the shared store can be found by similarity", warming.loaded, warming.scanned)

    async def apply(self, changes: Sequence[Change]) -> None:
        """What another replica did. Raises StoreError."""
        prefix = self._pattern.removesuffix(b"*")
        stored = [change.key for change in changes if change.kind == "stored" and change.key.startswith(prefix)]
        mark = self._deletions.mark
        await self._take_in(await self._shared.entries.fetch(list(dict.fromkeys(stored))), mark)
        for change in changes:
            place = scope_and_digest(change.key) if change.kind == "deleted" else None
            if place is not None:
                self._deleted(place[1])
                await self._forget(place[1])

    async def _fetches(self) -> AsyncIterator[tuple[int, list[tuple[bytes, bytes]]]]:
        """Each with the mark of what was deleted before."""
        async for keys in batches(self._shared.calls.servers, self._pattern, rest=0.0):
            mark = self._deletions.mark
            yield mark, await self._shared.entries.fetch(keys)

    async def _take_in(self, fetched: Sequence[tuple[bytes, bytes]], mark: int) -> int:
        """What has a vector that can be compared, and is not flushed for certain; how many."""
        taken = 0
        for start in range(0, len(fetched), TAKEN_AT_ONCE):
            read = [self._shared.entries.read(*item) for item in fetched[start : start + TAKEN_AT_ONCE]]
            taken += await self._memory.put_all([found for found in read if found is not None and self._wanted(found, mark)])
            await asyncio.sleep(0)
        return taken

    def _wanted(self, found: Found, mark: int) -> bool:
        entry, vector = found
        return vector is not None and not self._deletions.since(mark, entry.digest) and not flushed(self._shared.epochs, entry.stamps)

    async def _fetched(self, scope: bytes, digest: bytes, stale_seconds: float) -> Entry | None:
        """From the shared store, and from now on in memory."""
        if not self._shared.epochs.confirmed:
            return None
        mark = self._deletions.mark
        found = await self._shared.entries.get(scope, digest)
        if found is None:
            return None
        entry, vector = found
        if self._clock() >= entry.created + entry.ttl_seconds + min(stale_seconds, self._shared.entries.stale_seconds):
            return None
        if not reachable(self._shared.epochs, entry.stamps) and not await self._learnt_reachable(entry):
            return None
        if self._deletions.since(mark, digest):
            return None
        await self._memory.put(entry, vector)
        return entry

    async def _forget(self, digest: bytes) -> bool:
        self._deletions.add(digest)
        return await self._memory.delete(digest)

    async def _learnt_reachable(self, entry: Entry) -> bool:
        """For entries with stamps that are not known here yet."""
        return await self._shared.epochs.stamps([name for name, _ in entry.stamps]) == entry.stamps

    async def _keys_under(self, digest: bytes) -> list[bytes]:
        """Where memory knows the scope, the key is plain; else all keys are gone through."""
        scope = self._memory.scope_of(digest)
        if scope is not None:
            return [self._shared.entries.key(scope, digest)]
        keys: list[bytes] = []
        async for found in batches(self._shared.calls.servers, self._shared.keys.entries_under(digest), rest=0.0):
            keys.extend(found)
        return keys
