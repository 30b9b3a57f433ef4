"""Raises the epochs of many events together: what comes while one batch is raised and acknowledged goes into the next.

To raise an epoch on all replicas takes some round trips, a look at each replica, and waits for the slowest; hundreds a second share that.
An event that comes alone does not wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from inference_cache_sidecar.tasks import ended

AT_ONCE: Final = 256
"""Names in a batch: more would hold up the requests that share the connection to the store."""
PAUSE_SECONDS: Final = 0.05
"""From the beginning of a batch to that of the next, unless that is full: every replica looks up what was raised after each."""
RaiseAll = Callable[[Sequence[str]], Awaitable[Collection[str]]]
"""Returns when no replica serves any more what was stamped with the names, and says which of them it raised itself. Raises StoreError;
what was stamped is then out of reach here."""


class _Batch:
    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.raised: asyncio.Future[Collection[str]] = asyncio.get_running_loop().create_future()


class BatchedRaises:
    def __init__(self, raise_all: RaiseAll, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._raise_all = raise_all
        self._pause_seconds = pause_seconds
        self._batches: list[_Batch] = []
        """Not begun yet; only the last one may have room."""
        self._full = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def raised(self, names: Sequence[str]) -> Collection[str]:
        """As `raise_all`, of what was stamped before this call."""
        futures = {self._put(name).raised for name in names}
        if not futures:
            return ()
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._raise())
        # Others wait for the same futures: a caller that leaves must not cancel them.
        await asyncio.wait(futures)
        raised = {name for future in futures for name in future.result()}
        return raised.intersection(names)

    async def close(self) -> None:
        """When nobody waits any more."""
        if self._work is not None:
            await ended([self._work])

    def _put(self, name: str) -> _Batch:
        for batch in self._batches:
            if name in batch.names:
                return batch
        if not self._batches or len(self._batches[-1].names) >= AT_ONCE:
            self._batches.append(_Batch())
        self._batches[-1].names[name] = None
        if len(self._batches[-1].names) >= AT_ONCE:
            self._full.set()
        return self._batches[-1]

    async def _raise(self) -> None:
        loop = asyncio.get_running_loop()
        while self._batches:
            next_at = loop.time() + self._pause_seconds
            await self._raise_first()
            if not self._batches or len(self._batches[0].names) < AT_ONCE:
                await self._pause(next_at - loop.time())

    async def _raise_first(self) -> None:
        batch = self._batches.pop(0)
        self._full.clear()
        try:
            batch.raised.set_result(await self._raise_all(list(batch.names)))
        except Exception as error:
            batch.raised.set_exception(error)
            # Whoever waited may have gone: nobody need look at it.
            batch.raised.exception()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._full.wait()
        except TimeoutError:
            return
