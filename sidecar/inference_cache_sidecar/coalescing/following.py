"""The other side: a flight fed with what the holder of a lease tells. Made by `RedisCoalescer` for every flight that is led elsewhere."""

import asyncio
import time
from dataclasses import replace
from enum import Enum, auto
from typing import assert_never

from multidict import CIMultiDict

from inference_cache_sidecar.coalescing.leases import Leases, Others
from inference_cache_sidecar.coalescing.records import End, GarbledError, Head, Item, Stop
from inference_cache_sidecar.coalescing.streams import Streams
from inference_cache_sidecar.coalescing.terms import Terms
from inference_cache_sidecar.errors import StoreError, UpstreamAborted
from inference_cache_sidecar.flights import Flight
from inference_cache_sidecar.outcome import Answered, Miss


class Followed(Enum):
    """What came of following."""

    ANSWERED = auto()
    """The flight has all of the answer."""
    GONE = auto()
    """The holder went before it told anything that has been handed on: the lease may be had."""
    UNHELPFUL = auto()
    """What came is not for this caller, or cannot be read: it must ask upstream itself."""


class Follower:
    """Of one flight. Nothing is handed on to the flight's readers before it is sure to be for them, and events go on at once then."""

    def __init__(self, flight: Flight, others: Others, miss: Miss, leases: Leases, streams: Streams, terms: Terms) -> None:
        self._flight = flight
        self._others = others
        self._miss = miss
        self._leases = leases
        self._streams = streams
        self._terms = terms
        self._head: Head | None = None
        self._read = 0
        """Records."""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._gone = False
        """The holder has lost its lease; what it told before may still be unread."""
        self._well_at = time.monotonic()
        """When the store last did what it was asked."""

    async def follow(self) -> Followed:
        """Raises UpstreamAborted if no more comes of an answer that was handed on in part."""
        signs = asyncio.create_task(self._give_signs())
        try:
            return await self._follow()
        except (StoreError, GarbledError) as error:
            if self._flight.followed:
                raise UpstreamAborted("the replica that asked the model server is out of reach") from error
            return Followed.UNHELPFUL
        finally:
            signs.cancel()
            await asyncio.gather(signs, return_exceptions=True)

    async def _follow(self) -> Followed:
        while True:
            gone = self._gone
            records = await self._next(wait=not gone)
            for items in records:
                self._read += 1
                for item in items:
                    came_to = await self._take(item)
                    if came_to is not None:
                        return came_to
            if gone and not records:
                return self._without(Followed.GONE)

    async def _next(self, *, wait: bool) -> list[list[Item]]:
        """Raises StoreError, after more patience if an answer is being handed on."""
        while True:
            try:
                records = await self._streams.read(self._others.stream, self._read, wait=wait)
            except StoreError:
                patience = self._terms.patience_seconds if self._flight.followed else self._terms.hiccup_seconds
                if time.monotonic() - self._well_at > patience:
                    raise
            else:
                self._well_at = time.monotonic()
                return records
            await asyncio.sleep(self._terms.retry_seconds)

    async def _give_signs(self) -> None:
        """Tell the holder that somebody waits, and see that it is there. Ends when it is not."""
        seen_at = time.monotonic()
        while not self._gone:
            await asyncio.sleep(self._terms.renew_seconds / 2)
            try:
                self._gone = not await self._leases.wait(self._others)
                seen_at = time.monotonic()
            except StoreError:
                self._gone = time.monotonic() - seen_at > self._terms.lease_seconds

    async def _take(self, item: Item) -> Followed | None:
        """None: there is more to come."""
        match item:
            case Head():
                return self._take_head(item)
            case bytes():
                await self._take_part(item)
                return None
            case End(entry):
                await self._hand_on()
                ours = entry is not None and entry.digest == self._flight.digest
                self._flight.entry = entry if ours else None
                return Followed.ANSWERED
            case Stop.GIVEN_UP:
                return self._without(Followed.GONE)
            case Stop.FAILED:
                return self._without(Followed.UNHELPFUL)
            case _:
                assert_never(item)

    def _take_head(self, head: Head) -> Followed | None:
        """An answer of a server that is in trouble is not passed on: each replica has a server of its own."""
        if self._head is not None:
            raise GarbledError("a second head")
        self._head = head
        troubled = head.status == 429 or head.status >= 500
        refused = head.status != 200 and head.credential != self._flight.credential
        return Followed.UNHELPFUL if troubled or refused else None

    async def _take_part(self, part: bytes) -> None:
        """A plain answer is held back until it is whole, as a reader would do, or outgrows what readers can join."""
        if self._head is None:
            raise GarbledError("a part without a head")
        self._held.append(part)
        self._held_bytes += len(part)
        if self._head.events or self._held_bytes > self._flight.limit:
            await self._hand_on()

    async def _hand_on(self) -> None:
        head, flight = self._head, self._flight
        if head is None:
            raise GarbledError("an answer without a head")
        if not flight.followed:
            flight.followed = True
            flight.credential = head.credential
            flight.query = replace(flight.query, rendition=head.rendition)
            flight.decide(Answered(head.status, head.reason, CIMultiDict(head.headers), head.events, self._miss))
        held, self._held = self._held, []
        for part in held:
            await flight.feed(part)

    def _without(self, came_to: Followed) -> Followed:
        """Raises UpstreamAborted where it is too late for another answer."""
        if self._flight.followed:
            raise UpstreamAborted("the model server broke off its answer, or the replica that asked it is gone")
        return came_to
