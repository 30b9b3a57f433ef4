"""The end of a pod: the sidecar stops caching, and says when nothing is in flight any more.

The model server's preStop hook asks by `/drain/<token>`, and lives until it is answered. A terminating pod is told nothing more, so
a draining sidecar serves nothing that somebody may flush, and stores nothing. The hook also runs where the model server alone is
restarted: the pod lives on, and so a new process of it ends the drain.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

POLL_SECONDS: Final = 0.05
WATCH_SECONDS: Final = 0.25
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drained:
    in_flight: int
    """What would not end in time; 0: all has ended."""
    seconds: float
    """Since the drain began."""


class ModelServer(Protocol):
    """As `identity` knows it."""

    confirmed: bool
    process: int
    """Its number when it was last confirmed; 0: it never was."""


@dataclass(frozen=True, slots=True)
class Begun:
    at: float
    """By the monotonic clock."""
    process: int
    """The model server's number then."""


@dataclass(frozen=True, slots=True)
class DrainParts:
    """What of a sidecar a drain touches."""

    mark: Callable[[bool], None]
    """From now on it is draining, or not any more."""
    in_flight: Callable[[], int]
    close_idle: Callable[[], None]
    """Hang up on clients that ask nothing at the moment."""
    model_server: ModelServer


class DrainMemory(Protocol):
    """Outlives a worker: the one that comes after it goes on draining."""

    @property
    def begun(self) -> Begun | None: ...

    def begin(self, begun: Begun) -> None: ...

    def end(self) -> None: ...


@dataclass(slots=True)
class OwnMemory:
    """Of a sidecar without a supervisor."""

    begun: Begun | None = None

    def begin(self, begun: Begun) -> None:
        self.begun = begun

    def end(self) -> None:
        self.begun = None


class Drain:
    """`least_seconds`: until nobody who routes requests sends any here. `most_seconds` is asked again and again."""

    def __init__(
        self,
        parts: DrainParts,
        least_seconds: float,
        most_seconds: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        memory: DrainMemory | None = None,
    ) -> None:
        self._parts = parts
        self._memory = OwnMemory() if memory is None else memory
        self._least_seconds = least_seconds
        self._most_seconds = most_seconds
        self._clock = clock
        self._begun: Begun | None = None
        self._asking = 0
        """Hooks that wait for their answer."""

    @property
    def draining(self) -> bool:
        return self._begun is not None

    async def drained(self) -> Drained:
        """Begin, unless it has begun, and return when nothing is in flight, or the longest time has passed."""
        begun = self._begun
        if begun is None:
            begun = Begun(self._clock(), self._parts.model_server.process)
            self._memory.begin(begun)
            self._begin(begun)
        self._asking += 1
        try:
            while (told := self._over(self._clock() - begun.at)) is None:  # noqa: ASYNC110  what is in flight tells nobody of its end
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._asking -= 1
        _log.info("drained after %.1f s, %d requests still in flight", told.seconds, told.in_flight)
        return told

    async def watch(self) -> None:
        """For ever: take over a drain that another worker began, and end the one of a pod that lives on."""
        while True:
            self.look()
            await asyncio.sleep(WATCH_SECONDS)

    def look(self) -> None:
        begun, server = self._memory.begun, self._parts.model_server
        if begun is None:
            return
        if self._begun is None:
            self._begin(begun)
        if not server.confirmed or server.process == begun.process:
            return
        if not self._asking:
            self._end()
        elif not begun.process:
            # It was about to serve when it was told to end.
            self._memory.begin(Begun(begun.at, server.process))

    def _begin(self, begun: Begun) -> None:
        self._begun = begun
        self._parts.mark(True)
        _log.info("draining: nothing is cached from now on, %d requests are in flight", self._parts.in_flight())

    def _end(self) -> None:
        self._begun = None
        self._memory.end()
        self._parts.mark(False)
        _log.info("the model server alone was started anew, and the pod lives on: no longer draining")

    def _over(self, seconds: float) -> Drained | None:
        if seconds < self._least_seconds:
            return None
        self._parts.close_idle()
        in_flight = self._parts.in_flight()
        return Drained(in_flight, seconds) if not in_flight or seconds >= self._most_seconds() else None
