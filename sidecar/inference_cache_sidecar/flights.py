"""Flights: one upstream call in progress, read by all who ask the same meanwhile.

The registry owns every flight's task. Whoever asked first and whoever joins later are readers alike: one leaving harms
nobody, the last one leaving ends the upstream call. What has come so far is kept for readers that join late; an
answer that outgrows `limit` bytes takes no more of them, and is then read at the pace of the slowest.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from inference_cache_contract.entry import Entry
from inference_cache_contract.epochs import Epochs, Stamp, flushed, reachable
from inference_cache_sidecar.errors import SidecarError, whereabouts
from inference_cache_sidecar.outcome import Outcome
from inference_cache_sidecar.query.model import Query

_log = logging.getLogger(__name__)

UNSURE_SECONDS = 1.0
"""A flush counts as late only after this; a flight that is joined no longer than this after its start is never too late."""
WINDOW_BYTES = 256 * 1024
"""How far upstream may be ahead of the slowest reader once an answer has outgrown the limit."""


@dataclass(eq=False, slots=True)
class Reader:
    """One client's place in a flight's body."""

    flight: "Flight"
    position: int = 0

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """All that has come since the last batch, until the end. Raises what broke the flight off."""
        flight = self.flight
        while True:
            batch = flight.since(self)
            if batch:
                yield batch
            elif flight.ended:
                break
            else:
                await flight.more()
        if flight.error is not None:
            raise flight.error


class Flight:
    """Fed by its task, read by `Reader`s."""

    def __init__(self, digest: bytes, query: Query, credential: bytes, limit: int) -> None:
        self.digest = digest
        self.query = query
        self.credential = credential
        """Of the caller whose request went upstream."""
        self.outcome: Outcome | None = None
        self.ended = False
        self.error: SidecarError | None = None
        self.entry: Entry | None = None
        """What was stored of it, once it has ended."""
        self.stamps: tuple[Stamp, ...] | None = None
        """The epochs it began under; None: not known, or not yet."""
        self.begun = time.monotonic()
        self.keep = True
        """False: what it fetches must not be stored, since its key was flushed meanwhile."""
        self.detached = False
        """Goes on without any reader."""
        self.followed = False
        """Another replica asked upstream; `credential` and `query` are then those of its caller."""
        self.withdrawn = False
        """Nobody who has not joined may any more."""
        self.on_withdrawn: Callable[[], None] | None = None
        self.size = 0
        self.readers: set[Reader] = set()
        self.limit = limit
        """Bytes, up to which all that has come is kept."""
        self._parts: list[bytes] = []
        self._trimmed = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._drained: asyncio.Future[None] | None = None

    @property
    def joinable(self) -> bool:
        """Everything from the first byte is still there."""
        return self.size <= self.limit

    def decide(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._wake()

    async def decided(self) -> Outcome:
        """What the flight comes to. Raises SidecarError if it ended without."""
        while self.outcome is None:
            if self.ended:
                raise self.error or SidecarError("the call ended without an outcome")
            await self.more()
        return self.outcome

    async def feed(self, part: bytes) -> None:
        """Waits only where the answer has outgrown the limit and a reader lags."""
        self._parts.append(part)
        self.size += len(part)
        self._wake()
        if not self.joinable:
            await self._keep_pace()

    def end(self, error: SidecarError | None = None) -> None:
        if not self.ended:
            self.ended = True
            self.error = error
            self._wake()

    def whole(self) -> bytes:
        """The body so far; only while joinable."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def since(self, reader: Reader) -> list[bytes]:
        """What `reader` has not seen; counts as seen from now on."""
        batch = self._parts[reader.position - self._trimmed :]
        reader.position += len(batch)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        return batch

    def still_has(self, reader: Reader) -> bool:
        """Nothing that `reader` has not seen is gone: so it is for those that have been among the readers all the time."""
        return reader.position >= self._trimmed

    def withdraw(self) -> None:
        self.withdrawn = True
        self._wake()
        if self.on_withdrawn is not None:
            self.on_withdrawn()

    async def more(self) -> None:
        """Until something new has come, or the end. Every reader waits on a future of its own: cancelling one wakes no other."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _keep_pace(self) -> None:
        while True:
            self._trim()
            if sum(map(len, self._parts)) <= WINDOW_BYTES or not self.readers:
                return
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def _trim(self) -> None:
        slowest = min((reader.position for reader in self.readers), default=self._trimmed + len(self._parts))
        del self._parts[: slowest - self._trimmed]
        self._trimmed = slowest


Work = Callable[[Flight], Awaitable[None]]
"""Resolves the flight's outcome and feeds its body. May raise SidecarError."""


class Flights:
    """The registry: at most one joinable flight a digest."""

    def __init__(self, limit: int, epochs: Epochs) -> None:
        self.limit = limit
        """Bytes, up to which all of an answer is kept: for flights that start from now on."""
        self._epochs = epochs
        self._running: dict[bytes, Flight] = {}
        self._tasks: dict[Flight, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def running(self, digest: bytes) -> Flight | None:
        """The flight that a request may join: one that began before a flush is none for those who come after."""
        flight = self._running.get(digest)
        if flight is None or not flight.joinable or flight.error is not None or not self._holds(flight):
            return None
        return flight

    def _holds(self, flight: Flight) -> bool:
        """Where it cannot be said whether anything was flushed, a flight is shared by those who come within a moment."""
        if flight.stamps is not None and reachable(self._epochs, flight.stamps):
            return True
        if flight.stamps is not None and flushed(self._epochs, flight.stamps):
            return False
        return time.monotonic() - flight.begun < UNSURE_SECONDS

    def start(self, digest: bytes, query: Query, credential: bytes, work: Work, *, shared: bool = True, detached: bool = False) -> Flight:
        """`shared` flights can be joined until they end; `detached` ones go on without any reader."""
        flight = Flight(digest, query, credential, self.limit)
        flight.detached = detached
        task = asyncio.create_task(self._fly(flight, work))
        self._tasks[flight] = task
        if shared:
            self._running[digest] = flight
        task.add_done_callback(lambda done: self._land(flight, done))
        return flight

    def join(self, flight: Flight) -> Reader:
        reader = Reader(flight)
        flight.readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """The last reader to leave ends the upstream call, unless the flight is detached."""
        flight = reader.flight
        flight.readers.discard(reader)
        flight.since(reader)
        task = self._tasks.get(flight)
        if not flight.readers and not flight.detached and task is not None and not flight.ended:
            self._withdraw(flight)
            task.cancel()

    def part(self) -> None:
        """Nobody joins what is in flight now: what upstream serves, or what may be served of it, has changed."""
        self._running.clear()
        for flight in self._tasks:
            flight.withdraw()

    def discard(self, digest: bytes) -> None:
        """Nobody joins what is in flight under this key, and none of it is stored."""
        self._running.pop(digest, None)
        for flight in self._tasks:
            if flight.digest == digest:
                flight.keep = False
                flight.withdraw()

    def keep_nothing(self) -> None:
        """Nothing of what is in flight is stored, or joined by anybody else."""
        for flight in self._tasks:
            flight.keep = False
        self.part()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def _fly(flight: Flight, work: Work) -> None:
        try:
            await work(flight)
        except SidecarError as error:
            flight.end(error)
        else:
            flight.end()

    def _land(self, flight: Flight, task: asyncio.Task[None]) -> None:
        del self._tasks[flight]
        self._withdraw(flight)
        if task.cancelled():
            flight.end(SidecarError("the call was given up"))
        elif (failure := task.exception()) is not None:
            _log.error("a flight failed: %s", whereabouts(failure))
            flight.end(SidecarError("the call failed inside the cache"))

    def _withdraw(self, flight: Flight) -> None:
        if self._running.get(flight.digest) is flight:
            del self._running[flight.digest]
