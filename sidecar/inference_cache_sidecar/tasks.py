"""How tasks that go on for ever are ended. Called by whoever started them."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

AGAIN_SECONDS: Final = 0.1


async def ended(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    """Cancel them, and return when all have ended, however.

    A cancellation that comes while a call inside a library is just ending can get lost in there, so it is repeated.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
