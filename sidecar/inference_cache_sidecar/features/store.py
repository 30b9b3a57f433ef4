"""Where cells are kept: the shared store, or this process's memory where there is none."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from inference_cache_sidecar.shared.hot import HotCalls

OVERHEAD_BYTES: Final = 200
"""Of a key and a value in memory, beside their own bytes."""


class CellStore(Protocol):
    """Both methods take one round trip to each server, and raise StoreError."""

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    async def set_many(self, values: Iterable[tuple[bytes, bytes, float]]) -> None:
        """Each a key, a value and how many seconds it lives."""
        ...


class SharedCells:
    """`one_server`: all keys lie on one, so that one command can ask for all of them; in a Cluster each has a place of its own."""

    def __init__(self, hot: HotCalls, *, one_server: bool) -> None:
        self._hot = hot
        self._one_server = one_server

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not self._one_server or not keys:
            return await self._hot.get_many(keys)
        (values,) = await self._hot.run([(keys[0], (b"MGET", *keys))])
        found: list[bytes | None] = values
        return found

    async def set_many(self, values: Iterable[tuple[bytes, bytes, float]]) -> None:
        await self._hot.set_many(values)


class MemoryCells:
    """Bounded by bytes; what was used longest ago goes first. Never raises."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._values: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self.used_bytes = 0

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        now = self._clock()
        return [self._get(key, now) for key in keys]

    async def set_many(self, values: Iterable[tuple[bytes, bytes, float]]) -> None:
        now = self._clock()
        for key, value, ttl_seconds in values:
            self._drop(key)
            self._values[key] = (value, now + ttl_seconds)
            self.used_bytes += _cost(key, value)
        while self.used_bytes > self._max_bytes:
            self._drop(next(iter(self._values)))

    def _get(self, key: bytes, now: float) -> bytes | None:
        held = self._values.get(key)
        if held is None:
            return None
        if now >= held[1]:
            self._drop(key)
            return None
        self._values.move_to_end(key)
        return held[0]

    def _drop(self, key: bytes) -> None:
        held = self._values.pop(key, None)
        if held is not None:
            self.used_bytes -= _cost(key, held[0])


def _cost(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + OVERHEAD_BYTES
