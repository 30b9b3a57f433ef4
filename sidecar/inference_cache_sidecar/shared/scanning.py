"""Goes through all keys of a pattern, on every server, in batches that leave the store and the event loop to others in between."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final, TypeVar

from inference_cache_sidecar.shared.calls import SLOW_SECONDS, translated
from inference_cache_sidecar.shared.servers import Servers
from inference_cache_sidecar.tasks import ended

T = TypeVar("T")
BATCH: Final = 200
"""Keys looked at by the store in one go: some 100 µs of its time."""
REST: Final = 1.0
"""Pause after a batch, as a share of the time it took: half of the store's time is left to others, whatever it is worth."""


async def ahead(batches: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """The same, but the next one is already asked for while the last one is being used."""
    following = asyncio.ensure_future(anext(batches, None))
    try:
        while (batch := await following) is not None:
            following = asyncio.ensure_future(anext(batches, None))
            yield batch
    finally:
        await ended([following])


async def batches(servers: Servers, pattern: bytes, rest: float = REST) -> AsyncIterator[list[bytes]]:
    """Keys, some perhaps twice, none that were there all the time left out. Raises StoreError."""
    with translated():
        masters = await servers.masters()
    for master in masters:
        cursor = 0
        while True:
            begun = time.monotonic()
            with translated():
                async with asyncio.timeout(SLOW_SECONDS):
                    found: Any = await master.scan(cursor, match=pattern, count=BATCH)
            cursor, keys = found
            if keys:
                yield keys
            if cursor == 0:
                break
            await asyncio.sleep(rest * (time.monotonic() - begun))
