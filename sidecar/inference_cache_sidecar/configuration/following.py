"""Looks at the configuration's file again and again, and hands on what is new. `app` runs it for as long as the sidecar takes requests."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from inference_cache_contract.configuration import FlushOrder
from inference_cache_sidecar.configuration.configured import Configured
from inference_cache_sidecar.settings import Wanted

POLL_SECONDS: Final = 0.1


async def following(
    configured: Configured, use: Callable[[Wanted], None], heed: Callable[[Sequence[FlushOrder]], None], successor: Callable[[], object]
) -> None:
    """Never ends by itself. `use` takes up what is in force, `heed` the orders, also those beside a spec that is refused; `successor` is
    called where it needs another process."""
    heeded = configured.orders
    while True:
        await asyncio.sleep(POLL_SECONDS)
        taken_up = configured.look(use)
        if configured.orders != heeded:
            heeded = configured.orders
            heed(heeded)
        if taken_up and configured.needs_restart:
            successor()
