"""Coalescing through the shared store. Made by `app`, called by `flying` for every flight that must go upstream."""

import asyncio
import logging
from dataclasses import dataclass

from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.coalescing.following import Followed, Follower
from inference_cache_sidecar.coalescing.leases import Lease, Leases, Others
from inference_cache_sidecar.coalescing.protocol import Trip
from inference_cache_sidecar.coalescing.streams import Streams
from inference_cache_sidecar.coalescing.telling import Teller
from inference_cache_sidecar.coalescing.terms import Terms
from inference_cache_sidecar.errors import StoreError, whereabouts
from inference_cache_sidecar.flights import Flight, Flights
from inference_cache_sidecar.shared.calls import Calls
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.sealing import Sealer

FAREWELL_SECONDS = 1.0
_DEFAULTS = Terms()
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CoalescingCounts:
    """Flights since start, by who asked upstream."""

    led: int = 0
    """This replica, for all."""
    followed: int = 0
    """Another one."""
    found: int = 0
    """Nobody any more: the answer had been stored meanwhile."""
    retried: int = 0
    """Of all: after a holder that went."""
    alone: int = 0
    """This replica, for itself: the store failed, or what others had was not for this caller."""


class RedisCoalescer:
    """Implements `Coalescer`. `flights` are those it is asked to fly."""

    def __init__(self, hot: HotCalls, calls: Calls, keys: Keyspace, sealer: Sealer, flights: Flights, terms: Terms = _DEFAULTS) -> None:
        self._flights = flights
        self._terms = terms
        self._leases = Leases(hot, keys, terms)
        self._streams = Streams(hot, calls, sealer, terms)
        self._tellers: dict[asyncio.Task[None], Teller] = {}
        self._following = 0
        self.counts = CoalescingCounts()

    async def fly(self, flight: Flight, trip: Trip) -> None:
        if trip.key is None:
            await trip.lead()
        elif not await self._shared(flight, trip, trip.key):
            self.counts.alone += 1
            await trip.lead()

    async def drain(self, seconds: float) -> None:
        """Until no other replica waits for a flight of this one, but no longer than `seconds`."""
        heard = [task for task, teller in self._tellers.items() if teller.is_heard]
        if heard:
            await asyncio.wait(heard, timeout=seconds)

    async def close(self) -> None:
        """After all flights have ended: what they came to is still told."""
        if self._tellers:
            await asyncio.wait(self._tellers, timeout=FAREWELL_SECONDS)
        tellers = list(self._tellers)
        for task in tellers:
            task.cancel()
        await asyncio.gather(*tellers, return_exceptions=True)
        await self._leases.close()

    async def _shared(self, flight: Flight, trip: Trip, key: bytes) -> bool:
        """False: no other replica can help, and upstream has not been asked."""
        for attempt in range(self._terms.retries + 1):
            self.counts.retried += attempt > 0
            try:
                lease = await self._leases.acquire(key)
            except StoreError:
                return False
            if isinstance(lease, Lease):
                await self._lead(flight, trip, lease, look=lease.ended_lately or attempt > 0)
                return True
            came_to = await self._follow(flight, trip, lease)
            if came_to is not Followed.GONE:
                return came_to is Followed.ANSWERED
        return False

    async def _lead(self, flight: Flight, trip: Trip, lease: Lease, *, look: bool) -> None:
        """`look`: the answer may have been stored since it was looked for."""
        teller = self._tell(flight, lease)
        try:
            hit = await trip.find() if look else None
            if hit is not None:
                self.counts.found += 1
                flight.decide(hit)
            else:
                self.counts.led += 1
                await trip.lead()
        finally:
            teller.land()

    def _tell(self, flight: Flight, lease: Lease) -> Teller:
        teller = Teller(flight, lease, self._flights, self._leases, self._streams, self._terms)
        task = asyncio.create_task(teller.run())
        self._tellers[task] = teller
        task.add_done_callback(self._told)
        return teller

    def _told(self, task: asyncio.Task[None]) -> None:
        del self._tellers[task]
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("a flight is shared no further: %s", whereabouts(failure))

    async def _follow(self, flight: Flight, trip: Trip, others: Others) -> Followed:
        if not others.may_join or self._following >= self._terms.followed or not await trip.may_follow():
            return Followed.UNHELPFUL
        self._following += 1
        try:
            came_to = await Follower(flight, others, trip.miss, self._leases, self._streams, self._terms).follow()
        finally:
            self._following -= 1
        self.counts.followed += came_to is Followed.ANSWERED
        return came_to
