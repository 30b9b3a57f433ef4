"""Which resource is looked at next: every key once at a time, at the earliest moment that anybody asked for."""

import asyncio
import random
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
FIRST_RETRY_SECONDS: Final = 0.25
LAST_RETRY_SECONDS: Final = 30.0


class WorkQueue(Generic[K]):
    """Of one event loop."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._working: set[K] = set()
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()

    def add(self, key: K, delay_seconds: float = 0.0) -> None:
        """What is asked for while it is worked on comes right after."""
        due = asyncio.get_running_loop().time() + delay_seconds
        self._due[key] = min(due, self._due.get(key, due))
        self._changed.set()

    async def take(self) -> K:
        """Waits for the next key that is due; the caller says `done` or `failed` of it."""
        while True:
            self._changed.clear()
            key, wait = self._next()
            if key is not None and wait <= 0:
                del self._due[key]
                self._working.add(key)
                return key
            try:
                async with asyncio.timeout(wait if key is not None else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: K, again_seconds: float | None = None) -> None:
        self._failures.pop(key, None)
        self._release(key)
        if again_seconds is not None:
            self.add(key, again_seconds)

    def failed(self, key: K) -> float:
        """It is tried again after a while that doubles each time; returns the seconds."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(count, 16)) * random.uniform(0.5, 1.0)  # noqa: S311  spreads load
        self._release(key)
        self.add(key, delay)
        return delay

    def _release(self, key: K) -> None:
        self._working.discard(key)
        self._changed.set()

    def _next(self) -> tuple[K | None, float]:
        waiting = {key: due for key, due in self._due.items() if key not in self._working}
        if not waiting:
            return None, 0.0
        key = min(waiting, key=waiting.__getitem__)
        return key, waiting[key] - asyncio.get_running_loop().time()
