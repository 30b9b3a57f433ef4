"""The holder's side: once somebody elsewhere waits, all that the flight brings goes into its stream, from the first byte.

Made by `RedisCoalescer` for every flight that asks upstream, and run beside it as one reader more: it takes what has come at its own
pace, so that a slow store slows nobody. Before anybody waits it writes nothing at all.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Final

from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.coalescing.leases import Lease, Leases
from inference_cache_sidecar.coalescing.records import End, Head, Item, Stop
from inference_cache_sidecar.coalescing.streams import Streams
from inference_cache_sidecar.coalescing.terms import Terms
from inference_cache_sidecar.errors import StoreError, StoreRefused, StoreUnavailable, UpstreamAborted
from inference_cache_sidecar.flights import Flight, Flights, Reader
from inference_cache_sidecar.outcome import Answered, Failed, Hit

_PATIENCE_SECONDS: Final = 0.5
"""Between two looks at whether somebody still waits, while upstream says nothing."""
_log = logging.getLogger(__name__)


class Teller:
    """Of one flight. `run` ends when the flight has, and what it came to is told."""

    def __init__(self, flight: Flight, lease: Lease, flights: Flights, leases: Leases, streams: Streams, terms: Terms) -> None:
        self._flight = flight
        self._lease = lease
        self._flights = flights
        self._leases = leases
        self._streams = streams
        self._terms = terms
        self._reader = Reader(flight)
        self._told = 0
        """Records."""
        self._headed = False
        self._wrote_at = 0.0
        self._landing = False
        self._closed = False
        flight.on_withdrawn = lease.stirred.set

    @property
    def is_heard(self) -> bool:
        return self._leases.is_waited_for(self._lease)

    def land(self) -> None:
        """The flight's task is about to end."""
        self._landing = True
        self._lease.stirred.set()

    async def run(self) -> None:
        try:
            await self._accompany()
            await self._finish()
        except StoreError as error:
            _log.debug("a flight is shared no further: %s", error)
        finally:
            self._leases.forget(self._lease)

    async def _accompany(self) -> None:
        """Until the flight has ended. Raises StoreError when it can be shared no further."""
        while not self._landing:
            await self._lease.stirred.wait()
            self._lease.stirred.clear()
            await self._close_if_withdrawn()
            if self.is_heard and not self._landing:
                await self._tell_while_heard()
        while not self._flight.ended:
            await self._flight.more()

    async def _tell_while_heard(self) -> None:
        """As a reader of the flight, so that it goes on for those elsewhere alone."""
        flight, reader = self._flight, self._reader
        flight.readers.add(reader)
        try:
            while not flight.ended and self.is_heard:
                await self._close_if_withdrawn()
                await self._tell_news()
                await self._news()
        finally:
            position = reader.position
            self._flights.leave(reader)
            reader.position = position

    async def _finish(self) -> None:
        """What it came to, to whoever waits; then the lease goes."""
        if not self.is_heard and await self._insist(lambda: self._leases.release(self._lease, anyhow=False)):
            return
        await self._tell_news()
        await self._insist(lambda: self._leases.release(self._lease, anyhow=True))

    async def _close_if_withdrawn(self) -> None:
        """What nobody may join here, or what has outgrown the limit, is for those alone who have joined already."""
        if self._closed or (self._flight.joinable and not self._flight.withdrawn):
            return
        self._closed = True
        await self._insist(lambda: self._leases.close_to_others(self._lease))

    async def _check_beginning(self) -> None:
        """Raises StoreError if what is to be told next is gone, so that whoever waits must ask upstream."""
        if self._flight.still_has(self._reader):
            return
        await self._tell([Stop.GIVEN_UP])
        await self._insist(lambda: self._leases.release(self._lease, anyhow=True))
        raise StoreRefused("it has outgrown the limit")

    async def _tell_news(self) -> None:
        await self._check_beginning()
        for items in self._batches(list(self._items())):
            await self._tell(items)

    def _items(self) -> Iterator[Item]:
        """All that has come since. A head alone is not worth a record, and of an answer that stopped nobody needs the rest."""
        flight, parts = self._flight, self._flight.since(self._reader)
        last = self._last() if flight.ended else None
        if isinstance(last, Stop):
            yield last
            return
        if not self._headed and (parts or last) and isinstance(flight.outcome, Answered):
            self._headed = True
            yield self._head(flight.outcome)
        yield from parts
        if last:
            yield last

    def _head(self, answered: Answered) -> Head:
        kept = header_rules.kept_with_entry(answered.headers)
        flight = self._flight
        return Head(answered.status, answered.reason, kept, answered.events, flight.credential, flight.query.rendition)

    def _last(self) -> Item:
        match self._flight.outcome, self._flight.error:
            case Failed(), _:
                return Stop.FAILED
            case Answered(), None:
                return End(self._flight.entry)
            case _, UpstreamAborted():
                return Stop.FAILED
            case Hit() | Answered() | None, _:
                # A hit is not for everybody: they look for themselves.
                return Stop.GIVEN_UP

    def _batches(self, items: list[Item]) -> Iterator[list[Item]]:
        batch: list[Item] = []
        size = 0
        for item in items:
            length = len(item) if isinstance(item, bytes) else 0
            if batch and size + length > self._terms.record_bytes:
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += length
        if batch:
            yield batch

    async def _tell(self, items: list[Item]) -> None:
        kept = self._terms.records if self._flight.joinable else self._terms.window_records
        number = self._told + 1
        await self._insist(lambda: self._streams.append(self._lease.stream, number, items, kept))
        self._told = number
        self._wrote_at = time.monotonic()
        self._lease.writing = True

    async def _news(self) -> None:
        """Until there is more to tell, at the pace of records; or a moment has passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._flight.more()
        rest = self._wrote_at + self._terms.pace_seconds - time.monotonic()
        if rest > 0 and not self._flight.ended:
            await asyncio.sleep(rest)

    async def _insist(self, step: Callable[[], Awaitable[object]]) -> object:
        """Again while the store fails and the lease lasts. An answer that has outgrown the limit waits for no store. Raises StoreError."""
        while True:
            if not self._leases.holds(self._lease):
                raise StoreUnavailable("the lease is lost")
            try:
                return await step()
            except StoreUnavailable:
                if not self._flight.ended and not self._flight.joinable:
                    raise
            await asyncio.sleep(self._terms.retry_seconds)
