"""The store inside one sidecar: entries packed in a log, under a hard cap that counts everything.

The pipeline calls it from the event loop's thread. It owns the vector index it is given: vectors come and go with
their entries. Nothing here blocks the loop for more than a few milliseconds; long work gives way in between.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from inference_cache_contract import wire
from inference_cache_contract.entry import Entry
from inference_cache_contract.epochs import Epochs, flushed, reachable
from inference_cache_sidecar.index.protocol import Neighbour, Vector, VectorIndex
from inference_cache_sidecar.store.log import Log, Segment
from inference_cache_sidecar.store.protocol import StoreStats
from inference_cache_sidecar.store.slots import NOWHERE, Slots
from inference_cache_sidecar.store.worth import Worth, cost

_SEGMENTS = 1024
_LEAST_SEGMENT = 64 * 1024
_MOST_SEGMENT = 512 * 1024
_MOST_MAPPINGS = 32_768
_LARGEST_SHARE = 16
"""An entry larger than this part of the cap is refused."""
_FIXED_BYTES = 256 * 1024
"""The store's own objects, and what decoding keeps for reuse."""
_OVERHEAD_PER_ENTRY = 160
_GROWTH_ALLOWANCE = 16 * 1024
"""Room left for what a put makes grow beside the log."""
_NEARLY_FULL = 0.94
_LIVE_SHARE = 0.9
"""Of the log, once the store is nearly full; the rest are holes, so that segments worth emptying are found."""
_EVICTED_AHEAD = 2
"""At most, by one put."""
_TURN_SECONDS = 0.003
"""How long the loop is kept before it is given way to."""


class MemoryStore:
    """Implements `EntryStore`. `used_bytes` never stands above `max_bytes` between two calls."""

    def __init__(
        self,
        max_bytes: int,
        epochs: Epochs,
        index: VectorIndex,
        *,
        clock: Callable[[], float] = time.time,
        longest_stale_seconds: float = 0.0,
    ) -> None:
        """`longest_stale_seconds`: how long past its time an entry may still be asked for."""
        self._max_bytes = max_bytes
        self._epochs = epochs
        self._index = index
        self._clock = clock
        self._longest_stale_seconds = longest_stale_seconds
        self._log = Log(_segment_bytes(max_bytes))
        self._slots = Slots(self._log)
        self._worth = Worth()
        self._packed_bytes = 0
        self._vectors = 0
        self._stored = self._evicted = self._expired = self._flushed = self._refused = 0

    async def get(self, _scope: bytes, digest: bytes, *, stale_seconds: float = 0.0) -> Entry | None:
        slot = self._slots.find(digest)
        if slot is None:
            return None
        entry = self._servable(slot, stale_seconds)
        if entry is not None:
            self._worth.used(slot)
        return entry

    async def peek(self, _scope: bytes, digest: bytes) -> Entry | None:
        slot = self._slots.find(digest)
        return None if slot is None else self._servable(slot, 0.0)

    def still(self, entry: Entry) -> bool:
        slot = self._slots.find(entry.digest)
        if slot is None or self._log.part(self._slots.places[slot], wire.CREATED) != wire.packed_time(entry.created):
            return False
        if not reachable(self._epochs, entry.stamps):
            return False
        self._worth.used(slot)
        return True

    async def put(self, entry: Entry, vector: Vector | None) -> bool:
        """Raises ValueError if the vector is not one of the index's; the store is then as it was."""
        try:
            packed = wire.pack(entry)
        except wire.WireError:
            self._refused += 1
            return False
        size = len(packed) + _OVERHEAD_PER_ENTRY + (0 if vector is None else self._index.vector_bytes)
        per_byte = cost(entry) / size
        if size > self._max_bytes // _LARGEST_SHARE:
            self._refused += 1
            return False
        if not await self._make_room(len(packed), per_byte):
            self._worth.grow_old(per_byte)
            self._refused += 1
            return False
        self._keep(entry, packed, vector, per_byte)
        self._stored += 1
        await self._make_room(0, None)
        self._evict_ahead(per_byte)
        return True

    async def put_all(self, found: Sequence[tuple[Entry, Vector | None]]) -> int:
        """As `put` for each, but room is looked for once; returns how many are kept."""
        packed = [(entry, wire.pack(entry), vector) for entry, vector in found]
        length = sum(len(bytes_) for _, bytes_, _ in packed)
        if self._used_bytes() + self._wanted(length) + length > self._max_bytes * _NEARLY_FULL:
            return sum([await self.put(entry, vector) for entry, vector in found])
        self._index.add_all([(entry.scope, entry.digest, vector) for entry, _, vector in packed if vector is not None])
        for entry, bytes_, vector in packed:
            size = len(bytes_) + _OVERHEAD_PER_ENTRY + (0 if vector is None else self._index.vector_bytes)
            self._keep(entry, bytes_, vector, cost(entry) / size, indexed=True)
        self._stored += len(packed)
        await self._make_room(0, None)
        return len(packed)

    async def delete(self, digest: bytes) -> bool:
        slot = self._slots.find(digest)
        if slot is None:
            return False
        self._drop(slot)
        return True

    def scope_of(self, digest: bytes) -> bytes | None:
        """Of the entry that is held under `digest`; None if there is none."""
        slot = self._slots.find(digest)
        return None if slot is None else self._slots.scope(slot)

    async def holds(self, digest: bytes) -> bool:
        slot = self._slots.find(digest)
        return slot is not None and self._servable(slot, 0.0) is not None

    async def neighbours(self, scope: bytes, vector: Vector, limit: int) -> list[Neighbour]:
        return self._index.search(scope, vector, limit)

    async def count(self, name: str) -> int:
        found = 0
        turn = _Turn()
        for slot in self._held():
            entry = self._unpacked(slot)
            if entry is not None and reachable(self._epochs, entry.stamps) and not entry.expired(self._clock()) and _stamped(entry, name):
                found += 1
            await turn.give_way_if_over()
        return found

    async def purge(self, _name: str) -> int:
        before = self._flushed
        await self.sweep()
        return self._flushed - before

    async def sweep(self) -> None:
        """Delete the bytes of whatever cannot be served any more."""
        turn = _Turn()
        for slot in self._held():
            entry = self._unpacked(slot)
            if entry is not None and not self._drop_if_flushed(slot, entry):
                self._drop_if_lapsed(slot, entry)
            await turn.give_way_if_over()
        while (sparse := self._log.sparse()) is not None:
            self._empty(sparse)
            await turn.give_way_if_over()

    def use(self, max_bytes: int, longest_stale_seconds: float) -> None:
        """From now on. What a lower cap leaves no room for goes with the next `shrink`."""
        self._max_bytes = max_bytes
        self._longest_stale_seconds = longest_stale_seconds

    async def shrink(self) -> None:
        """Make the cap hold, after it was lowered."""
        await self._make_room(0, None)

    def stats(self) -> StoreStats:
        return StoreStats(
            entries=len(self._slots),
            vectors=self._vectors,
            max_bytes=self._max_bytes,
            used_bytes=self._used_bytes(),
            entry_bytes=self._packed_bytes + self._vectors * self._index.vector_bytes,
            stored=self._stored,
            evicted=self._evicted,
            expired=self._expired,
            flushed=self._flushed,
            refused=self._refused,
        )

    def _used_bytes(self) -> int:
        return self._log.mapped + self._slots.nbytes + self._worth.nbytes + self._index.nbytes + _FIXED_BYTES

    def _servable(self, slot: int, stale_seconds: float) -> Entry | None:
        """Drops what nobody can be served any more."""
        entry = self._unpacked(slot)
        if entry is None or self._drop_if_lapsed(slot, entry):
            return None
        if not reachable(self._epochs, entry.stamps):
            self._drop_if_flushed(slot, entry)
            return None
        return None if self._clock() >= entry.created + entry.ttl_seconds + stale_seconds else entry

    def _unpacked(self, slot: int) -> Entry | None:
        try:
            return wire.unpack(self._log.read(self._slots.places[slot]))
        except wire.WireError:
            self._drop(slot)
            return None

    def _flushed_since(self, entry: Entry) -> bool:
        return flushed(self._epochs, entry.stamps)

    def _drop_if_flushed(self, slot: int, entry: Entry) -> bool:
        if not self._flushed_since(entry):
            return False
        self._drop(slot)
        self._flushed += 1
        return True

    def _drop_if_lapsed(self, slot: int, entry: Entry) -> bool:
        if self._clock() < entry.created + entry.ttl_seconds + self._longest_stale_seconds:
            return False
        self._drop(slot)
        self._expired += 1
        return True

    def _held(self) -> Iterator[int]:
        """Slots that hold an entry when their turn comes."""
        slot = 0
        while slot < self._slots.high:
            if self._slots.places[slot] != NOWHERE:
                yield slot
            slot += 1

    def _keep(self, entry: Entry, packed: bytes, vector: Vector | None, per_byte: float, *, indexed: bool = False) -> None:
        """`indexed`: the index has the vector already."""
        if vector is not None:
            if not indexed:
                self._index.add(entry.scope, entry.digest, vector)
            self._vectors += 1
        slot = self._slots.find(entry.digest)
        uses = 0
        if slot is None:
            slot = self._slots.take()
        else:
            uses = self._worth.uses(slot)
            self._clear(slot, vector_of=None if vector is None else entry.scope)
        lapses = entry.created + entry.ttl_seconds + self._longest_stale_seconds
        self._slots.fill(slot, self._log.append(slot, packed), lapses, vector is not None)
        self._worth.entered(slot, per_byte, uses)
        self._packed_bytes += len(packed)

    def _drop(self, slot: int) -> None:
        self._worth.left(slot)
        place = self._slots.places[slot]
        self._forget_vector(slot, None)
        self._slots.vacate(slot)
        self._packed_bytes -= self._log.free(place)

    def _clear(self, slot: int, *, vector_of: bytes | None) -> None:
        """Make way in `slot` for an entry of the same digest, whose vector, if any, is in the index already."""
        self._forget_vector(slot, vector_of)
        self._packed_bytes -= self._log.free(self._slots.places[slot])

    def _forget_vector(self, slot: int, replaced_in: bytes | None) -> None:
        if not self._slots.has_vector(slot):
            return
        self._vectors -= 1
        scope = self._slots.scope(slot)
        if scope != replaced_in:
            self._index.remove(scope, self._slots.digest(slot))

    async def _make_room(self, length: int, per_byte: float | None) -> bool:
        """Make the cap hold with a record of `length` more. False if what would have to go is worth more than `per_byte`."""
        turn = _Turn()
        while self._used_bytes() + self._wanted(length) > self._max_bytes:
            if not self._reclaim(per_byte):
                return False
            await turn.give_way_if_over()
        return True

    def _wanted(self, length: int) -> int:
        """A new record also leaves a segment's room free, into which sparse ones are emptied."""
        return self._log.growth(length) + self._log.segment_bytes + _GROWTH_ALLOWANCE if length else 0

    def _reclaim(self, per_byte: float | None) -> bool:
        """One step: drop what has lapsed, else empty a sparse segment, else evict what is worth least."""
        if self._drop_next_lapsed():
            return True
        sparse = self._log.sparse()
        if sparse is not None:
            self._empty(sparse)
            return True
        return self._evict(per_byte)

    def _drop_next_lapsed(self) -> bool:
        lapsed = self._slots.next_lapsed(self._clock())
        if lapsed is None:
            return False
        self._drop(lapsed)
        self._expired += 1
        return True

    def _evict(self, per_byte: float | None) -> bool:
        slot = self._worth.lowest()
        if slot is None:
            return False
        if per_byte is not None and self._worth.outranks(slot, per_byte):
            return False
        self._worth.evicted(slot)
        self._drop(slot)
        self._evicted += 1
        return True

    def _evict_ahead(self, per_byte: float) -> None:
        """Near the cap each put makes holes for later ones, else the first put past it would have to make them all."""
        for _ in range(_EVICTED_AHEAD):
            if self._used_bytes() < _NEARLY_FULL * self._max_bytes or self._log.live < _LIVE_SHARE * self._log.mapped:
                return
            if not self._drop_next_lapsed() and not self._evict(per_byte):
                return

    def _empty(self, segment: Segment) -> None:
        """Move what lives in a segment to the log's end, and give the segment back."""
        places = self._slots.places
        for slot, place, _ in self._log.records(segment):
            if places[slot] == place:
                places[slot] = self._log.append(slot, self._log.read(place))
        self._log.drop(segment)


class _Turn:
    """Keeps long work from keeping the loop."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def give_way_if_over(self) -> None:
        if time.perf_counter() - self._began > _TURN_SECONDS:
            await asyncio.sleep(0)
            self._began = time.perf_counter()


def _stamped(entry: Entry, name: str) -> bool:
    return any(stamp == name for stamp, _ in entry.stamps)


def _segment_bytes(max_bytes: int) -> int:
    """Small enough that an open and a spare one do not count, large enough that the kernel's mappings do not run out."""
    by_count = min(max(max_bytes // _SEGMENTS, _LEAST_SEGMENT), _MOST_SEGMENT)
    return -(-max(by_count, max_bytes // _MOST_MAPPINGS) // 4096) * 4096
