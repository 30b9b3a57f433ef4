"""What a supervised worker does for its supervisor: beat, keep less when told, and retire once another has taken over. `app` runs it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from inference_cache_sidecar.draining import Begun
from inference_cache_sidecar.exposition import Counter, Gauge, Reading
from inference_cache_sidecar.supervisor.shared_page import Count, WorkerPage

BEAT_SECONDS: Final = 0.05
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Duties:
    """What the supervisor can order, as `app` does it."""

    shed: Callable[[], None]
    """Keep less from now on."""
    restore: Callable[[], None]
    """Keep as much as the spec allows again."""
    retire: Callable[[], Awaitable[None]]
    """Accept nothing more, and return when all that was begun has ended."""
    ended: Callable[[], None]
    """It has retired."""


class PagedDrain:
    """A `draining.DrainMemory` that all workers of a sidecar share."""

    def __init__(self, page: WorkerPage) -> None:
        self._page = page

    @property
    def begun(self) -> Begun | None:
        told = self._page.drain
        return None if told is None else Begun(*told)

    def begin(self, begun: Begun) -> None:
        self._page.begin_drain(begun.at, begun.process)

    def end(self) -> None:
        self._page.end_drain()


async def serve_under(page: WorkerPage, duties: Duties) -> None:
    """For as long as the worker takes connections, and until it has ended what it began."""
    page.accept()
    shed, restored = page.shedding_orders, page.restoring_orders
    retiring: asyncio.Task[None] | None = None
    try:
        while retiring is None or not retiring.done():
            page.beat()
            if page.shedding_orders != shed:
                shed = page.shedding_orders
                duties.shed()
            if page.restoring_orders != restored:
                restored = page.restoring_orders
                duties.restore()
            if page.retired and retiring is None:
                _log.info("another worker has taken over: this one finishes what it has begun")
                retiring = asyncio.ensure_future(duties.retire())
            await asyncio.sleep(BEAT_SECONDS)
        retiring.result()
        duties.ended()
    finally:
        if retiring is not None:
            retiring.cancel()


async def quiet(busy: Callable[[], int], connections: Callable[[], int], idle_seconds: float) -> None:
    """Until nothing is in flight, and those who may still ask by a connection have had `idle_seconds` to do it."""
    began = time.monotonic()
    while busy() or (connections() and time.monotonic() - began < idle_seconds):  # noqa: ASYNC110  no connection tells of its end
        await asyncio.sleep(BEAT_SECONDS)


def readings(page: WorkerPage) -> Iterator[Reading]:
    yield Counter("worker_restarts", "Cache workers that ended and were started anew.", lambda: page.told(Count.RESTARTS))
    yield Counter("worker_hand_overs", "Cache workers that another took over from.", lambda: page.told(Count.HAND_OVERS))
    yield Gauge("workers_retiring", "Old cache workers that finish their requests.", lambda: page.told(Count.RETIRING))
    yield Gauge("relayed_connections", "Connections that go straight to the model server.", lambda: page.told(Count.RELAYED))
    yield Counter("relayed_connections_ever", "Connections that went straight to the model server.", lambda: page.told(Count.RELAYED_EVER))
    yield Gauge("container_memory_used_bytes", "All in the container.", lambda: page.told(Count.MEMORY_USED) or None)
    yield Gauge("container_memory_limit_bytes", "Of the container.", lambda: page.told(Count.MEMORY_LIMIT) or None)
