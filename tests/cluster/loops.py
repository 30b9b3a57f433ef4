"""Event loops of tests in which parts of the operator run, and are cancelled in the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

HANG_UP_SECONDS: Final = 30.0


@asynccontextmanager
async def hanging_up() -> AsyncIterator[None]:
    """Around all sessions of a loop, which ends after it.

    A TLS connection whose request was cancelled says goodbye to its peer first; a loop that ends before leaves it open, which is a warning.
    """
    try:
        yield
    finally:
        loop = asyncio.get_running_loop()
        end = loop.time() + HANG_UP_SECONDS
        while any(not each.is_closing() for each in list(loop._transports.values())) and loop.time() < end:
            await asyncio.sleep(0.01)
