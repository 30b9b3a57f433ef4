"""What events are carried out on, in tests of the places they come from."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.events.handling import EventCounts, EventHandler, Outcome
from inference_cache_sidecar.events.payloads import Event

SECONDS = 150.0


@dataclass
class Cache:
    """Stands where events are carried out; refuses while it is `down`."""

    flushed: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    down: bool = False
    broken_by: str | None = None
    counts: EventCounts = field(default_factory=EventCounts)

    @property
    def handler(self) -> EventHandler:
        return EventHandler(self.apply, self.counts)

    async def apply(self, event: Event) -> None:
        if self.down:
            raise StoreUnavailable("the shared store is not there")
        if any(request.value == self.broken_by for request in event.flushes):
            raise ValueError(self.broken_by)
        self.flushed.extend(f"{request.target} {request.value}".strip() for request in event.flushes)
        self.forgotten.extend(f"{entity.join_key} {entity.value}" for entity in event.entities)

    def outcomes(self, outcome: Outcome) -> float:
        return sum(count for _, count in self.counts.outcomes[outcome].items())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.02)
