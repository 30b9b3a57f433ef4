"""Replicas that only fly, over one real Redis, with a pretended upstream: for the tests of coalescing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from multidict import CIMultiDict

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.coalescing.coalescer import RedisCoalescer
from inference_cache_sidecar.coalescing.protocol import Trip
from inference_cache_sidecar.coalescing.terms import Terms
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.errors import UpstreamFault
from inference_cache_sidecar.flights import Flight, Flights, Reader
from inference_cache_sidecar.outcome import Answered, Failed, Hit, Miss
from inference_cache_sidecar.query.model import Query, Rendition
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.calls import Calls
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.sealing import Sealer
from inference_cache_sidecar.shared.servers import Servers

KEYS = Keyspace("test")
KEY = b"k" * 32
DIGEST = b"d" * 32
STREAMED = Query(Endpoint.CHAT, "m", b"", "hello", b"hello", True, Rendition(stream=True, include_usage=True))
PLAIN = Query(Endpoint.CHAT, "m", b"", "hello", b"hello", True, Rendition())
LASTING = Terms(lease_seconds=60.0, slack_seconds=20.0)
"""A busy machine is no dead replica, and no store that hangs."""
LOOKING_LATE = replace(LASTING, look_seconds=30.0)
SHORT = replace(LASTING, lease_seconds=5.0, renew_seconds=0.3)
"""For a leader that is to die: the others renew theirs."""
PATIENCE = 60.0


def entry(answer: bytes = b'{"id":"a"}') -> Entry:
    return Entry(b"s" * 32, DIGEST, Endpoint.CHAT, "hello", answer, "a", (), (("cache", 1),), 1.0, 60.0, 1, 1, 0.5, False)


@dataclass
class Model:
    """Upstream, as all replicas have it: says word after word when told to."""

    status: int = 200
    events: bool = True
    fault: UpstreamFault | None = None
    calls: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    ended: int = 0
    words: asyncio.Queue[bytes | Exception | None] = field(default_factory=asyncio.Queue)
    stored: Entry | None = field(default_factory=entry)

    def say(self, *words: bytes | Exception | None) -> None:
        """None ends the answer, an exception breaks it off."""
        for word in words:
            self.words.put_nowait(word)

    async def answer(self, flight: Flight) -> None:
        self.calls += 1
        self.asked.set()
        try:
            if self.fault is not None:
                flight.decide(Failed(self.fault))
                return
            headers = CIMultiDict({"Content-Type": "text/event-stream", "Set-Cookie": "mine", "X-Odd": "\udce9"})
            flight.decide(Answered(self.status, "Fine", headers, self.events, Miss()))
            while (word := await self.words.get()) is not None:
                if isinstance(word, Exception):
                    raise word
                await flight.feed(word)
            flight.entry = self.stored if self.status == 200 else None
        finally:
            self.ended += 1


class Replica:
    """As much of a sidecar as flies."""

    def __init__(self, url: str, terms: Terms, keys: tuple[bytes, ...], deadline: float, limit: int) -> None:
        self.servers = Servers(parse_redis_url(url))
        self.hot = HotCalls(self.servers, deadline)
        # There is nothing here that would close the breaker again.
        self.calls = Calls(self.servers, Breaker(BreakerSettings(failures=1_000_000)), deadline)
        self.flights = Flights(limit, MemoryEpochs())
        self.coalescer = RedisCoalescer(self.hot, self.calls, KEYS, Sealer(keys), self.flights, terms)
        self.found: Hit | None = None
        self.looks = 0
        self.may_follow = True

    def fly(self, model: Model, query: Query = STREAMED, *, key: bytes | None = KEY, credential: bytes = b"c") -> Reader:
        async def find() -> Hit | None:
            self.looks += 1
            return self.found

        async def may_follow() -> bool:
            return self.may_follow

        async def work(flight: Flight) -> None:
            await self.coalescer.fly(flight, Trip(key, lambda: model.answer(flight), find, may_follow, Miss()))

        return self.flights.join(self.flights.start(DIGEST, query, credential, work))

    def expect(self, seconds: float, slack: float = 0.5) -> None:
        """From now on a store that is silent for longer is one that fails; `slack` is for waiting reads."""
        self.hot._deadline_seconds = seconds
        self.coalescer._streams._terms = replace(LASTING, slack_seconds=slack)

    async def cut_off(self) -> None:
        """From now on it neither renews its leases nor tells anything, as if it were dead."""
        await self.coalescer._leases.close()
        for task in list(self.coalescer._tellers):
            task.cancel()

    async def close(self) -> None:
        await self.flights.close()
        await self.coalescer.close()
        await self.hot.close()
        await self.servers.close()


Start = Callable[..., Replica]


@pytest.fixture
async def starting(redis) -> AsyncIterator[Start]:
    """`start(terms=…)`: a replica, closed with the test."""
    async with AsyncExitStack() as stack:

        def begin(
            terms: Terms = LASTING, keys: tuple[bytes, ...] = (), deadline: float = 10.0, limit: int = 1 << 20, url: str = redis.url
        ) -> Replica:
            replica = Replica(url, terms, keys, deadline, limit)
            stack.push_async_callback(replica.close)
            return replica

        yield begin


@asynccontextmanager
async def within(seconds: float = PATIENCE) -> AsyncIterator[None]:
    async with asyncio.timeout(seconds):
        yield


async def until(holds: Callable[[], object]) -> None:
    async with within():
        while not holds():
            await asyncio.sleep(0.005)


async def heard(reader: Reader, size: int) -> bytes:
    """What the flight has, once it has that much."""
    await until(lambda: reader.flight.size >= size or reader.flight.ended)
    return reader.flight.whole()


async def whole(reader: Reader) -> bytes:
    """The whole body. Raises what broke it off."""
    async with within():
        return b"".join([part async for batch in reader.batches() for part in batch])


def follows(replica: Replica) -> bool:
    return replica.coalescer._following > 0


def agreed_anew(replicas: list[Replica]) -> bool:
    """All but one follow that one, after a leader that has gone."""
    return all(replica.coalescer.counts.retried for replica in replicas) and sum(map(follows, replicas)) == len(replicas) - 1


def lease_of(redis) -> str | None:
    with redis.client() as client:
        return client.get(KEYS.flight(KEY).decode())


def streams_of(redis) -> list[str]:
    with redis.client() as client:
        return [key for key in client.scan_iter() if client.type(key) == "stream"]


async def led(start: Start, model: Model, followers: int = 1, **options) -> tuple[Replica, Reader, list[Replica], list[Reader]]:
    """A replica that asks, and others that follow it."""
    leader = start(**options)
    leading = leader.fly(model)
    async with within():
        await model.asked.wait()
    others = [start(**options) for _ in range(followers)]
    following = [other.fly(model) for other in others]
    await until(lambda: all(map(follows, others)))
    return leader, leading, others, following
