"""Sees events to their end: handled again and again until each is applied or put aside. Sources that acknowledge call it."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from inference_cache_sidecar.events.handling import Handled, Outcome
from inference_cache_sidecar.events.retrying import Backoff

T = TypeVar("T")
TRIES: Final = 5
"""Of an event that fails in a way nobody foresaw; one that waits for the store is tried without end."""
_ENDS: Final = (Outcome.APPLIED, Outcome.BAD)
_log = logging.getLogger(__name__)


async def _let_be(_: object) -> None:
    return


async def settle(
    records: list[T],
    handle: Callable[[T], Awaitable[Handled]],
    settled: Callable[[Sequence[tuple[T, Handled]]], Awaitable[None]],
    waited: Callable[[Sequence[T]], Awaitable[None]] = _let_be,
) -> None:
    """Returns when each of `records` is applied or bad, however long that takes; `settled` is told of them as they end.

    `waited` is told, before every other try, what is tried again. If one of the two raises, `records` holds what has not ended.
    """
    waiting = Backoff()
    for tries in itertools.count(1):
        handled = [_judged(each, tries) for each in await asyncio.gather(*map(handle, records))]
        await settled([(record, each) for record, each in zip(records, handled, strict=True) if each.outcome in _ENDS])
        records[:] = [record for record, each in zip(records, handled, strict=True) if each.outcome not in _ENDS]
        if not records:
            return
        seconds = waiting.next_seconds()
        _log.warning("%d events could not be carried out: next try in %.1f s", len(records), seconds)
        await asyncio.sleep(seconds)
        await waited(records)


def _judged(handled: Handled, tries: int) -> Handled:
    return Handled(Outcome.BAD, handled.reason) if handled.outcome is Outcome.BROKEN and tries >= TRIES else handled
