"""Reads through to the feature server: what the store has of a request's cells, upstream for the rest, and the store again for that.

The server calls `answer`; events and writes that pass call `drop_entity`. One round trip to read, one to write. Whatever the store does
not do in time is a miss: no answer ever fails for it.

A request is answered out of cells only after upstream has answered one like it (same features, join keys, form and tenant, whatever
rows): from that come the names and the order of columns, and that the question is a valid one for this caller.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from inference_cache_contract.epochs import Epochs, entity_epoch
from inference_cache_contract.spec_features import Features
from inference_cache_sidecar.errors import SidecarError
from inference_cache_sidecar.features import cells
from inference_cache_sidecar.features.entities import FEATURES, FeatureKeys, rows_of
from inference_cache_sidecar.features.filling import (
    Fresh,
    Lack,
    Stored,
    cells_found,
    filled,
    fresh_of,
    is_everything,
    lack_of,
    stored_of,
)
from inference_cache_sidecar.features.kept import KeptCells
from inference_cache_sidecar.features.layout import Layout, Reading, Row
from inference_cache_sidecar.features.outcome import FeatureOutcome, Merged, Passed, Unplaced
from inference_cache_sidecar.features.place import Found, Place, place_of
from inference_cache_sidecar.features.request import Feature, FeatureRequest, Value
from inference_cache_sidecar.features.response import merge, split

Ask = Callable[[bytes], Awaitable[bytes | None]]
"""Asks upstream with this body: the body of its answer, or None if that is not to be kept (another status than 200, too long)."""
THREAD_BYTES: Final = 64 * 1024
"""Answers longer than this are taken apart beside the event loop."""


class FeatureCache:
    def __init__(
        self,
        kept: KeptCells,
        epochs: Epochs,
        keys: FeatureKeys,
        spec: Features,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` tells the time of day in seconds, as the clocks of other replicas do."""
        self._kept = kept
        self._epochs = epochs
        self._keys = keys
        self._spec = spec
        self._clock = clock
        self._source = (spec.upstream or "").encode() + b" "
        """Another feature server's values are others."""
        self.counts = kept.counts

    async def answer(self, request: FeatureRequest, tenant: bytes, ask: Ask, *, fresh: bool = False) -> FeatureOutcome:
        """`fresh`: from upstream alone, and stored. Raises what `ask` raises."""
        place = await self._place(request, self._source + tenant)
        if isinstance(place, Unplaced):
            self.counts.bypassed += 1
            return place
        found = Found() if fresh else await self._find(place)
        outcome = await self._merged(place, found, ask) or await self._passed(place, found, ask)
        self._count(outcome)
        return outcome

    async def drop_entity(self, join_key: str, value: Value) -> None:
        """Nothing of the rows in which `join_key` has this value, as text or as number, is served any more once this returns.

        Raises StoreError where other replicas could not be told; here it holds all the same.
        """
        await self.drop_entities([(join_key, value)])

    async def drop_entities(self, entities: Iterable[tuple[str, Value]]) -> None:
        """As `drop_entity`."""
        names = list(dict.fromkeys(entity_epoch(join_key, value) for join_key, value in entities))
        self.counts.dropped_entities += len(names)
        await asyncio.gather(*map(self._epochs.raise_everywhere, names))

    async def drop_all(self) -> None:
        """As `drop_entity`, for whatever the feature cache holds."""
        self.counts.flushes += 1
        await self._epochs.raise_everywhere(FEATURES)

    async def _place(self, request: FeatureRequest, tenant: bytes) -> Place | Unplaced:
        views = [view for view in request.views if self._spec.ttl_of(view) > 0]
        if not views:
            return Unplaced("ttl")
        rows = rows_of(request, tenant)
        stamps = await self._epochs.stamps(rows.epoch_names)
        return Unplaced("epochs") if stamps is None else place_of(request, tenant, rows, stamps, views, self._keys)

    async def _find(self, place: Place) -> Found:
        fields, store_is_there = await self._kept.get(place.all_keys, place.all_stamps, self._now_ms())
        return place.found(fields, store_is_there=store_is_there)

    async def _merged(self, place: Place, found: Found, ask: Ask) -> Merged | None:
        """None where upstream must be asked with the request as it is."""
        if found.layout is None:
            return None
        request, reading = place.request, Reading(found.layout, place.views)
        rows = reading.rows(found.kept)
        lack, total = lack_of(request, rows), request.count * len(request.features)
        if lack is None:
            whole = [row for row in rows if not isinstance(row, Row)]
            return Merged(_body(place, found.layout, whole), total, total, stored=False)
        if is_everything(lack, request, rows):
            return None
        fresh = await self._fetched(place, lack, ask)
        parts = None if fresh is None else filled(reading, rows, fresh)
        if fresh is None or parts is None:
            return None
        stored = await self._keep(place, found, fresh)
        return Merged(_body(place, found.layout, parts), cells_found(request, place.rows.places, rows), total, stored)

    async def _fetched(self, place: Place, lack: Lack, ask: Ask) -> Fresh | None:
        asked = place.request.narrowed(lack.features, [place.rows.firsts[row] for row in lack.rows])
        return await self._fresh(place, lack.features, lack.rows, await self._asked(ask, asked))

    async def _passed(self, place: Place, found: Found, ask: Ask) -> Passed:
        request = place.request
        body = await self._asked(ask, request.body)
        fresh = await self._fresh(place, request.features, place.rows.places, body)
        cells = request.count * len(request.features)
        return Passed(fresh is not None and await self._keep(place, found, fresh, names=fresh.layout.names), cells)

    async def _asked(self, ask: Ask, body: bytes) -> bytes | None:
        self.counts.upstream_calls += 1
        try:
            return await ask(body)
        except SidecarError:
            self.counts.upstream_failures += 1
            raise

    async def _fresh(self, place: Place, features: tuple[Feature, ...], rows: Sequence[int], body: bytes | None) -> Fresh | None:
        if body is None:
            return None
        answer = split(body, len(rows)) if len(body) < THREAD_BYTES else await asyncio.to_thread(split, body, len(rows))
        fresh = None if answer is None else fresh_of(place.request, features, rows, answer)
        self.counts.not_understood += fresh is None
        return fresh

    async def _keep(self, place: Place, found: Found, fresh: Fresh, names: Sequence[str] = ()) -> bool:
        """True if it was stored. `names`: of all columns, where this is the answer to the request as it was."""
        if not found.store_is_there:
            return False
        now_ms = self._now_ms()
        values = [self._value(place, found, stored, now_ms) for stored in stored_of(fresh, place.views)]
        if names:
            ttl = max(self._spec.ttl_of(view) for view in place.views)
            ends = now_ms + int(1000 * ttl)
            values.append((place.names_key, self._kept.format.write_names(place.names_key, place.names_stamp, ends, names), ttl))
        return await self._kept.set(value for value in values if value[2] > 0)

    def _value(self, place: Place, found: Found, stored: Stored, now_ms: int) -> tuple[bytes, bytes, float]:
        """Key, value and time to live; with what was known of the row already, and then ending when that does."""
        view = place.views.index(stored.view)
        key, ttl = place.keys[view][stored.row], self._spec.ttl_of(stored.view)
        ends = now_ms + int(1000 * (ttl if stored.complete else min(ttl, self._spec.missing_ttl_seconds)))
        known = found.kept[view][stored.row] if found.kept else None
        older = {} if known is None else {column: cell for column, cell in cells.cells(known).items() if column not in stored.cells}
        if known is not None and older:
            ends = min(ends, cells.ends_ms(known))
        value = self._kept.format.write(key, place.stamps[stored.row], ends, {**older, **stored.cells})
        return key, value, (ends - now_ms) / 1000

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _count(self, outcome: Merged | Passed) -> None:
        counts = self.counts
        found = outcome.found if isinstance(outcome, Merged) else 0
        counts.cells_found += found
        counts.cells_fetched += outcome.cells - found
        counts.hits += found == outcome.cells
        counts.partial += 0 < found < outcome.cells
        counts.misses += found == 0


def _body(place: Place, layout: Layout, rows: Sequence[Sequence[bytes]]) -> bytes:
    return merge(layout.names, [rows[row] for row in place.rows.places])
