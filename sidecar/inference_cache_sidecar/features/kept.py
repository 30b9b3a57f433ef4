"""What the cache has of cells: near, in this process's memory, and in the store that replicas share. The cache reads and writes here."""

from collections.abc import Iterable, Sequence
from typing import Final

from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.features.cells import CellFormat, Fields
from inference_cache_sidecar.features.outcome import FeatureCounts
from inference_cache_sidecar.features.store import CellStore, MemoryCells

NEAR_SECONDS: Final = 60.0
"""How long a copy stays near; it is served no longer than the value itself, which says when it ends and under which stamps it counts."""


class KeptCells:
    """`near`: copies of what passed here lately, which cost no round trip; None for a store that is in this process anyway."""

    def __init__(self, store: CellStore, cell_format: CellFormat, near: MemoryCells | None = None) -> None:
        self._store = store
        self._near = near
        self.format = cell_format
        self.counts = FeatureCounts()

    async def get(self, keys: Sequence[bytes], stamps: Sequence[bytes], now_ms: int) -> tuple[list[Fields | None], bool]:
        """For each key what counts under its stamps; and whether the store is there to be written to. Never raises."""
        found: list[Fields | None] = [None] * len(keys)
        if self._near is not None:
            found = self.format.read(keys, await self._near.get_many(keys), stamps, now_ms)
        absent = [number for number, fields in enumerate(found) if fields is None]
        if not absent:
            return found, True
        wanted = [keys[number] for number in absent]
        try:
            values = await self._store.get_many(wanted)
        except StoreError:
            self.counts.store_failures += 1
            return found, False
        fetched = self.format.read(wanted, values, [stamps[number] for number in absent], now_ms)
        for number, fields in zip(absent, fetched, strict=True):
            found[number] = fields
        await self._copy(
            (key, value, NEAR_SECONDS)
            for key, value, fields in zip(wanted, values, fetched, strict=True)
            if value is not None and fields is not None
        )
        return found, True

    async def set(self, values: Iterable[tuple[bytes, bytes, float]]) -> bool:
        """Each a key, a value and its seconds to live. True if it was stored. Never raises."""
        values = list(values)
        try:
            await self._store.set_many(values)
        except StoreError:
            self.counts.store_failures += 1
            return False
        await self._copy((key, value, min(ttl, NEAR_SECONDS)) for key, value, ttl in values)
        return True

    async def _copy(self, values: Iterable[tuple[bytes, bytes, float]]) -> None:
        if self._near is not None:
            await self._near.set_many(values)
