"""Raises the epochs of many events together: what comes while one batch is raised and acknowledged goes into the next.

To raise an epoch on all replicas takes some round trips and waits for the slowest of them; hundreds a second share that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from inference_cache_sidecar.tasks import ended

AT_ONCE: Final = 256
"""Names in a batch: more would hold up the requests that share the connection to the store."""
RaiseAll = Callable[[Sequence[str]], Awaitable[object]]
"""Returns when no replica serves any more what was stamped with the names. Raises StoreError."""


class _Batch:
    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.raised: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Raises:
    def __init__(self, raise_all: RaiseAll) -> None:
        self._raise_all = raise_all
        self._batches: list[_Batch] = []
        """Not begun yet."""
        self._work: asyncio.Task[None] | None = None

    async def raised(self, names: Iterable[str]) -> Sequence[str]:
        """The names, when no replica serves any more what was stamped with any of them before this call. Raises what `raise_all` does."""
        wanted = list(names)
        futures = {self._put(name).raised for name in wanted}
        if not futures:
            return wanted
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._raise())
        # Others wait for the same futures: a caller that leaves must not cancel them.
        await asyncio.wait(futures)
        for future in futures:
            future.result()
        return wanted

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
        return self._batches[-1]

    async def _raise(self) -> None:
        while self._batches:
            batch = self._batches.pop(0)
            try:
                await self._raise_all(list(batch.names))
            except Exception as error:
                batch.raised.set_exception(error)
                # Whoever waited may have gone: nobody need look at it.
                batch.raised.exception()
            else:
                batch.raised.set_result(None)
