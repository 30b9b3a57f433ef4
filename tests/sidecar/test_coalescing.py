"""Several replicas over one real Redis, with a pretended upstream: who asks, who follows, and what is left when things break."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.coalescing.coalescer import RedisCoalescer
from inference_cache_sidecar.coalescing.protocol import Trip, flight_key
from inference_cache_sidecar.coalescing.records import End, GarbledError, Head, Stop, decode, encode
from inference_cache_sidecar.coalescing.streams import Streams
from inference_cache_sidecar.coalescing.terms import Terms
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.errors import SidecarError, UpstreamAborted, UpstreamFault
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
LASTING = Terms()
SHORT = Terms(lease_seconds=1.0, renew_seconds=0.3)
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
        self.flights = Flights(limit, MemoryEpochs())
        calls = Calls(self.servers, Breaker(BreakerSettings()), deadline)
        self.coalescer = RedisCoalescer(self.hot, calls, KEYS, Sealer(keys), self.flights, terms)
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
async def start(redis) -> AsyncIterator[Start]:
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


async def test_one_asks_and_the_others_see_every_part_as_it_comes(start):
    model = Model()
    _, leading, others, following = await led(start, model, followers=2)
    said = b""
    for word in (b"one ", b"two ", b"three"):
        model.say(word)
        said += word
        for reader in following:
            assert await heard(reader, len(said)) == said
    model.say(None)
    assert [await whole(reader) for reader in (leading, *following)] == [said] * 3
    assert model.calls == 1
    assert [other.coalescer.counts.followed for other in others] == [1, 1]


async def test_every_kind_of_servers_will_do(start, shared_server):
    await follows_to_the_end(start, shared_server)


async def test_a_server_with_tls_and_a_user_of_few_rights_will_do(start, redis_tls):
    await follows_to_the_end(start, redis_tls.url)


async def follows_to_the_end(start: Start, url: str) -> None:
    model = Model()
    leader, leading, _, following = await led(start, model, followers=2, url=url)
    model.say(b"one ")
    for reader in following:
        await heard(reader, 4)
    model.say(b"two", None)
    assert [await whole(reader) for reader in (leading, *following)] == [b"one two"] * 3
    await until(lambda: not leader.coalescer._tellers)
    assert model.calls == 1


async def test_events_keep_their_bounds(start):
    model = Model()
    _, _, _, (reader,) = await led(start, model)
    model.say(b"data: a\n\n", b"data: b\n\n", b"data: c\n\n", None)
    await until(lambda: reader.flight.ended)
    assert reader.flight._parts == [b"data: a\n\n", b"data: b\n\n", b"data: c\n\n"]


async def test_a_follower_learns_whose_answer_it_is_and_what_was_stored_of_it(start):
    model = Model()
    leader, other = start(), start()
    leader.fly(model, STREAMED, credential=b"leader's")
    await until(model.asked.is_set)
    reader = other.fly(model, PLAIN, credential=b"follower's")
    await until(lambda: follows(other))
    model.say(b"x", None)
    await until(lambda: reader.flight.ended)
    flight = reader.flight
    assert (flight.followed, flight.credential, flight.query) == (True, b"leader's", STREAMED)
    assert flight.entry == model.stored
    assert flight.outcome == Answered(200, "Fine", CIMultiDict({"content-type": "text/event-stream"}), True, Miss())


async def test_who_comes_late_sees_what_was_said_before(start):
    model = Model()
    leader, late = start(), start()
    leading = leader.fly(model)
    model.say(b"one ", b"two ")
    assert await heard(leading, 8) == b"one two "
    reader = late.fly(model)
    assert await heard(reader, 8) == b"one two "
    model.say(None)
    assert await whole(reader) == b"one two "
    assert model.calls == 1


async def test_a_flight_that_ends_before_it_was_seen_that_somebody_waits_is_told_whole(start):
    model = Model()
    _, _, _, (reader,) = await led(start, model, terms=Terms(look_seconds=30.0))
    model.say(b"one ", b"two", None)
    assert await whole(reader) == b"one two"
    assert model.calls == 1


async def test_nothing_is_written_while_nobody_waits_but_that_the_flight_has_ended(start, redis):
    model, replica = Model(), start(terms=Terms(look_seconds=0.001))
    reader = replica.fly(model)
    model.say(b"one", b"two", None)
    await whole(reader)
    await until(lambda: lease_of(redis) == "-")
    assert streams_of(redis) == []


async def test_every_key_it_writes_runs_out(start, redis):
    model = Model()
    _, _, _, (reader,) = await led(start, model)
    model.say(b"one", None)
    await whole(reader)
    await until(lambda: lease_of(redis) == "-")
    with redis.client() as client:
        assert all(client.pttl(key) > 0 for key in client.scan_iter())
        assert client.dbsize() == 2


async def test_who_looked_before_the_answer_was_stored_looks_again(start):
    model, first, second = Model(), start(), start()
    reader = first.fly(model)
    model.say(b"one", None)
    await whole(reader)
    await until(lambda: not first.coalescer._tellers)
    second.found = Hit(entry(), "exact", 60.0)
    found = second.fly(model)
    async with within():
        assert await found.flight.decided() is second.found
    assert (model.calls, first.looks) == (1, 0)


async def test_a_flight_right_after_another_is_shared_too(start, redis):
    model = Model(stored=None)
    first = start()
    reader = first.fly(model)
    model.say(None)
    await whole(reader)
    await until(lambda: lease_of(redis) == "-")
    model.asked.clear()
    _, _, _, (reader,) = await led(start, model)
    model.say(b"one", None)
    assert await whole(reader) == b"one"
    assert model.calls == 2


async def test_a_plain_answer_comes_whole(start):
    model = Model(events=False)
    _, _, _, (reader,) = await led(start, model)
    model.say(b'{"a":1}', None)
    assert await whole(reader) == b'{"a":1}'
    assert model.calls == 1


async def test_an_answer_that_outgrows_the_limit_goes_on_for_those_who_follow(start):
    model = Model()
    _, leading, _, (reader,) = await led(start, model, limit=100_000)
    words = [bytes([65 + number]) * 10_000 for number in range(26)]
    reading = [asyncio.create_task(whole(each)) for each in (leading, reader)]
    model.say(words[0])
    await until(lambda: reader.flight.size)
    model.say(*words[1:], None)
    assert await asyncio.gather(*reading) == [b"".join(words)] * 2


async def test_who_comes_when_an_answer_has_outgrown_the_limit_asks_itself(start):
    model = Model()
    leader, late = start(limit=10), start(limit=10)
    reading = asyncio.create_task(whole(leading := leader.fly(model)))
    for read in (1, 2):
        model.say(b"x" * 20)
        await until(lambda: leading.position == read)  # noqa: B023
    reader = late.fly(model)
    await until(lambda: model.calls == 2)
    model.say(None, None)
    await reading
    assert not reader.flight.followed


# What must not be shared.


async def test_a_request_without_a_key_neither_asks_the_store_nor_is_joined(start, redis):
    model, one, two = Model(), start(), start()
    readers = [one.fly(model, key=None), two.fly(model, key=None)]
    await until(lambda: model.calls == 2)
    model.say(None, None)
    await asyncio.gather(*map(whole, readers))
    with redis.client() as client:
        assert client.dbsize() == 0


def test_flights_are_the_same_only_with_digest_prompt_and_epochs():
    same = flight_key(DIGEST, "hello", (("cache", 1), ("tag:a", 2)))
    assert same == flight_key(DIGEST, "hello", (("tag:a", 2), ("cache", 1)))
    others = [
        flight_key(b"e" * 32, "hello", (("cache", 1), ("tag:a", 2))),
        flight_key(DIGEST, "hello!", (("cache", 1), ("tag:a", 2))),
        flight_key(DIGEST, "hello", (("cache", 2), ("tag:a", 2))),
        flight_key(DIGEST, "hello", (("cache", 1),)),
    ]
    assert len({same, *others}) == 5


async def test_nobody_who_began_after_a_flush_joins_an_answer_from_before(start):
    model, before, after = Model(), start(), start()
    readers = [replica.fly(model, key=flight_key(DIGEST, "hello", (("cache", epoch),))) for epoch, replica in enumerate((before, after))]
    await until(lambda: model.calls == 2)
    model.say(None, None)
    await asyncio.gather(*map(whole, readers))


async def test_a_caller_who_may_not_follow_asks_itself(start):
    model, leader, other = Model(), start(), start()
    leader.fly(model)
    await until(model.asked.is_set)
    other.may_follow = False
    other.fly(model)
    await until(lambda: model.calls == 2)


async def test_a_flight_that_was_withdrawn_is_joined_by_nobody_else_and_goes_on_for_the_others(start):
    model = Model()
    leader, _, _, (reader,) = await led(start, model)
    model.say(b"one ")
    await heard(reader, 4)
    leader.flights.discard(DIGEST)
    await until(lambda: all(teller._closed for teller in leader.coalescer._tellers.values()))
    late = start()
    late.fly(model)
    await until(lambda: model.calls == 2)
    assert not follows(late)
    model.say(None, None)
    assert await whole(reader) == b"one "


async def test_no_more_flights_are_followed_at_once_than_agreed(start):
    model, leader, other = Model(), start(), start(terms=Terms(followed=1))
    for key in (b"1" * 32, b"2" * 32):
        leader.fly(model, key=key)
    await until(lambda: model.calls == 2)
    other.fly(model, key=b"1" * 32)
    await until(lambda: follows(other))
    other.fly(model, key=b"2" * 32)
    await until(lambda: model.calls == 3)


async def test_a_refusal_is_for_the_same_credential_only(start):
    model = Model(status=400, events=False)
    leader, same, another = start(), start(), start()
    leader.fly(model, credential=b"c")
    await until(model.asked.is_set)
    reader = same.fly(model, credential=b"c")
    await until(lambda: follows(same))
    other = another.fly(model, credential=b"other")
    await until(lambda: follows(another))
    model.say(b"no", None)
    assert await whole(reader) == b"no"
    await until(lambda: model.calls == 2)
    assert not other.flight.followed


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Model(status=503, events=False), id="unavailable"),
        pytest.param(Model(status=429, events=False), id="overloaded"),
        pytest.param(Model(fault=UpstreamFault(502, "gone")), id="no-answer"),
    ],
)
async def test_a_model_server_in_trouble_is_not_every_replicas(start, model):
    sound = Model()
    leader, other = start(terms=Terms(look_seconds=30.0)), start()
    fault, model.fault = model.fault, None
    gate = asyncio.Event()
    answer = model.answer

    async def late(flight: Flight) -> None:
        await gate.wait()
        model.fault = fault
        await answer(flight)

    model.answer = late  # type: ignore[method-assign]
    leader.fly(model)
    await until(lambda: leader.coalescer.counts.led)
    reader = other.fly(sound)
    await until(lambda: follows(other))
    gate.set()
    model.say(b"trouble", None)
    sound.say(b"fine", None)
    assert await whole(reader) == b"fine"
    assert (sound.calls, other.coalescer.counts.alone) == (1, 1)


# When leaders go.


async def test_a_holder_that_never_was_costs_exactly_one_call(start, redis):
    with redis.client() as client:
        client.set(KEYS.flight(KEY).decode(), "0123456789abcdef" * 2 + "o.", px=700)
    model = Model()
    replicas = [start(terms=SHORT) for _ in range(3)]
    readers = [replica.fly(model) for replica in replicas]
    async with within():
        await model.asked.wait()
    await until(lambda: sum(map(follows, replicas)) == 2)
    model.say(b"one", None)
    assert [await whole(reader) for reader in readers] == [b"one"] * 3
    assert model.calls == 1


async def test_a_dead_leader_costs_exactly_one_call_more(start):
    model, again = Model(), Model()
    leader, others = start(terms=SHORT), [start(terms=SHORT) for _ in range(3)]
    leader.fly(model)
    await until(model.asked.is_set)
    readers = [other.fly(again) for other in others]
    await until(lambda: all(map(follows, others)))
    await leader.cut_off()
    await until(again.asked.is_set)
    await until(lambda: sum(map(follows, others)) == 2)
    again.say(b"one", None)
    assert [await whole(reader) for reader in readers] == [b"one"] * 3
    assert (model.calls, again.calls) == (1, 1)


async def test_a_leader_that_dies_in_mid_answer_breaks_it_off(start):
    model = Model()
    leader, _, _, readers = await led(start, model, followers=2, terms=SHORT)
    model.say(b"one")
    for reader in readers:
        await heard(reader, 3)
    await leader.cut_off()
    for reader in readers:
        with pytest.raises(UpstreamAborted):
            await whole(reader)
    assert model.calls == 1


async def test_a_leader_that_dies_in_a_plain_answer_costs_one_call_more(start):
    model, again = Model(events=False), Model(events=False)
    leader, other = start(terms=SHORT), start(terms=SHORT)
    leader.fly(model)
    await until(model.asked.is_set)
    reader = other.fly(again)
    await until(lambda: follows(other))
    model.say(b"half")
    await until(lambda: any(teller._told for teller in leader.coalescer._tellers.values()))
    await leader.cut_off()
    again.say(b"whole", None)
    assert await whole(reader) == b"whole"
    assert (model.calls, again.calls) == (1, 1)


async def test_a_leader_whose_lease_is_gone_learns_it_at_the_next_look(start, redis):
    model, leader = Model(), start(terms=Terms(lease_seconds=600.0))
    leader.fly(model)
    await until(model.asked.is_set)
    lease = next(iter(leader.coalescer._leases._leases))
    with redis.client() as client:
        client.delete(KEYS.flight(KEY).decode())
    await until(lambda: not leader.coalescer._leases.holds(lease))


async def test_a_leader_whose_last_caller_leaves_goes_on_for_those_elsewhere(start):
    model = Model()
    leader, leading, _, (reader,) = await led(start, model)
    await until(lambda: any(teller.is_heard for teller in leader.coalescer._tellers.values()))
    model.say(b"one ")
    await heard(reader, 4)
    leader.flights.leave(leading)
    model.say(b"two", None)
    assert await whole(reader) == b"one two"
    assert model.calls == 1


async def test_who_comes_after_the_last_follower_left_sees_all_of_it(start):
    model = Model()
    leader, leading, (other,), (reader,) = await led(start, model, terms=SHORT)
    teller = next(iter(leader.coalescer._tellers.values()))
    model.say(b"one ")
    await heard(reader, 4)
    other.flights.leave(reader)
    await until(lambda: len(leading.flight.readers) == 1)
    assert not teller.is_heard
    model.say(b"two ")
    await heard(leading, 8)
    late = start(terms=SHORT)
    following = late.fly(model)
    assert await heard(following, 8) == b"one two "
    model.say(b"three", None)
    assert await whole(following) == b"one two three"
    assert model.calls == 1


async def test_the_last_one_leaving_anywhere_ends_the_call(start):
    model = Model()
    leader, leading, (other,), (reader,) = await led(start, model, terms=SHORT)
    model.say(b"one")
    await heard(reader, 3)
    leader.flights.leave(leading)
    other.flights.leave(reader)
    await until(lambda: not leader.flights)
    assert model.ended == 1


async def test_an_answer_given_up_before_it_was_seen_that_somebody_waits_is_asked_for_once_more(start):
    model = Model()
    leader, leading, _, (reader,) = await led(start, model, terms=Terms(look_seconds=30.0))
    model.say(b"one")
    await heard(leading, 3)
    leader.flights.leave(leading)
    await until(lambda: model.calls == 2)
    model.say(b"two", None)
    assert await whole(reader) == b"two"


async def test_who_leaves_follows_no_more_whenever_that_is(start):
    """Also in the middle of a call to the store."""
    model = Model()
    leader, other = start(), start()
    leading = leader.fly(model)
    for number in range(1, 41):
        reader = other.fly(model)
        model.say(b"x")
        await heard(reader, number)
        other.flights.leave(reader)
        await until(lambda: not other.flights)
    assert (model.calls, leading.flight.size) == (1, 40)


async def test_a_leader_that_closes_hands_over_before_the_first_token(start):
    model = Model()
    leader, _, _, (reader,) = await led(start, model)
    await leader.close()
    await until(lambda: model.calls == 2)
    model.say(b"one", None)
    assert await whole(reader) == b"one"


async def test_a_leader_that_drains_waits_for_those_elsewhere(start):
    model = Model()
    leader, _, _, (reader,) = await led(start, model)
    model.say(b"one")
    await heard(reader, 3)
    draining = asyncio.create_task(leader.coalescer.drain(PATIENCE))
    model.say(None)
    assert await whole(reader) == b"one"
    async with within():
        await draining
    assert not leader.coalescer._tellers


async def test_a_paused_leader_writes_where_nobody_reads(start, redis):
    """It wakes up and goes on, when another has long taken its lease."""
    old, new = Model(), Model()
    leader = start(terms=Terms(look_seconds=30.0))
    leading = leader.fly(old)
    await until(old.asked.is_set)
    with redis.client() as client:
        client.delete(KEYS.flight(KEY).decode())
    second, third = start(), start()
    readers = [second.fly(new)]
    await until(new.asked.is_set)
    readers.append(third.fly(new))
    await until(lambda: follows(third))
    lease = next(iter(leader.coalescer._leases._leases))
    lease.waited_for = asyncio.get_running_loop().time()
    lease.stirred.set()
    old.say(b"old", None)
    assert await whole(leading) == b"old"
    await until(lambda: not leader.coalescer._tellers)
    new.say(b"new", None)
    assert [await whole(reader) for reader in readers] == [b"new", b"new"]
    assert not second.coalescer._leases.holds(lease)
    assert (old.calls, new.calls) == (1, 1)


async def test_leaders_that_die_one_after_the_other_are_not_waited_for_for_ever(start, redis):
    model, replica = Model(), start(terms=Terms(lease_seconds=0.3, renew_seconds=0.1, retries=1))

    async def hold() -> None:
        number = 0
        while True:
            number += 1
            with redis.client() as client:
                client.set(KEYS.flight(KEY).decode(), f"{number:032x}o.", px=5000)
            await asyncio.sleep(0.05)

    holding = asyncio.create_task(hold())
    await until(lambda: lease_of(redis))
    replica.fly(model)
    await until(lambda: model.calls == 1)
    holding.cancel()
    assert replica.coalescer.counts.alone == 1


# When the store fails.


async def test_without_a_store_everybody_asks(start, redis):
    redis.kill()
    model = Model()
    replicas = [start() for _ in range(3)]
    readers = [replica.fly(model) for replica in replicas]
    await until(lambda: model.calls == 3)
    model.say(*[None] * 3)
    assert [await whole(reader) for reader in readers] == [b""] * 3


async def test_a_store_that_hangs_holds_up_nobody_for_longer_than_a_deadline_and_then_not_at_all(start, redis):
    model, replica, loop = Model(), start(deadline=0.2), asyncio.get_running_loop()
    model.say(*[None] * 30)
    await whole(replica.fly(model))
    redis.pause()
    took = []
    for _ in range(10):
        begun = loop.time()
        await whole(replica.fly(model))
        took.append(loop.time() - begun)
    redis.resume()
    assert sorted(took)[5] < 0.1, took
    assert sum(took) < 2.0, took


async def test_a_lease_that_came_too_late_counts_when_it_turns_out_to_be_had(start, redis):
    model, leader = Model(), start(deadline=0.05, terms=Terms(lease_seconds=30.0))
    async with within():
        await leader.hot.get(b"connected")
    redis.pause()
    leading = leader.fly(model)
    await until(model.asked.is_set)
    redis.resume()
    await until(lambda: lease_of(redis))
    other = start()
    reader = other.fly(model)
    await until(lambda: follows(other))
    model.say(b"one", None)
    assert [await whole(leading), await whole(reader)] == [b"one"] * 2
    assert model.calls == 1


async def test_a_caller_who_leaves_while_the_store_is_asked_holds_up_nobody(start, redis):
    model, first, second = Model(), start(terms=Terms(lease_seconds=600.0)), start()
    async with within():
        await first.hot.get(b"connected")
    redis.pause()
    reader = first.fly(model)
    await asyncio.sleep(0.1)
    first.flights.leave(reader)
    await until(lambda: not first.flights)
    redis.resume()
    await until(lambda: lease_of(redis) == "-")
    second.fly(model)
    await until(lambda: model.calls == 1)


async def test_a_follower_that_was_told_nothing_asks_itself_when_the_store_goes(start, redis):
    model = Model()
    _, _, (other,), (reader,) = await led(start, model)
    redis.kill()
    await until(lambda: model.calls == 2)
    model.say(None, None)
    assert await whole(reader) == b""
    assert other.coalescer.counts.alone == 1


async def test_a_short_silence_of_the_store_breaks_nothing_off(start, redis):
    model = Model()
    _, leading, _, (reader,) = await led(start, model, deadline=0.1, terms=Terms(lease_seconds=30.0))
    model.say(b"one ")
    await heard(reader, 4)
    redis.pause()
    model.say(b"two ")
    await heard(leading, 8)
    await asyncio.sleep(1.0)
    redis.resume()
    model.say(b"three", None)
    assert await whole(reader) == b"one two three"
    assert model.calls == 1


async def test_a_store_that_goes_in_mid_answer_harms_no_caller_of_the_leader(start, redis):
    model = Model()
    leader, leading, _, (reader,) = await led(start, model, terms=SHORT)
    model.say(b"one ")
    await heard(reader, 4)
    redis.kill()
    model.say(b"two", None)
    assert await whole(leading) == b"one two"
    with pytest.raises(UpstreamAborted):
        await whole(reader)
    await until(lambda: not leader.coalescer._tellers)


# What lies in the store.


async def test_the_store_holds_no_plain_text_with_encryption(start, redis):
    secret = b"a very private answer " * 20
    model = Model(stored=entry(secret))
    _, _, _, (reader,) = await led(start, model, keys=(b"k" * 32,))
    model.say(secret, None)
    assert await whole(reader) == secret
    with redis.client() as client:
        client.save()
    dump = (redis.folder / "dump.rdb").read_bytes()
    assert streams_of(redis)
    assert b"private" not in dump
    assert b"hello" not in dump


async def test_a_reader_without_the_key_asks_itself(start):
    model = Model()
    leader, other = start(keys=(b"k" * 32,)), start()
    leader.fly(model)
    await until(model.asked.is_set)
    reader = other.fly(model)
    await until(lambda: follows(other))
    model.say(b"one")
    await until(lambda: model.calls == 2)
    assert not reader.flight.followed


SECRET = (b"k" * 32,)
HEAD = Head(200, "OK", (("content-type", "text/event-stream"),), True, b"c", Rendition(stream=True))
Junk = Callable[[bytes, Callable[[bytes, int, bytes], bytes]], tuple[str, dict[bytes, bytes]]]


def sealing(keys: tuple[bytes, ...]) -> Callable[[bytes, int, bytes], bytes]:
    sealer = Sealer(keys)
    return lambda stream, number, record: sealer.seal(stream + b":%d" % number, record)


async def asks_itself(start: Start, redis, junk: Junk, keys: tuple[bytes, ...]) -> None:
    """A replica that finds a lease, and in its stream a record that is none."""
    token = "0123456789abcdef" * 2
    stream = KEYS.flight_stream(KEY, token)
    name, fields = junk(stream, sealing(keys))
    with redis.client() as client:
        client.set(KEYS.flight(KEY).decode(), token + "o.", px=600_000)
        client.xadd(stream.decode(), fields, id=name)
    model, replica = Model(), start(keys=keys)
    reader = replica.fly(model)
    await until(lambda: model.calls == 1)
    model.say(b"fine", None)
    assert await whole(reader) == b"fine"
    assert replica.coalescer.counts.alone == 1


@pytest.mark.parametrize("keys", [pytest.param((), id="plain"), pytest.param(SECRET, id="encrypted")])
@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(lambda stream, seal: ("*", {b"r": b"junk"}), id="not-numbered"),
        pytest.param(lambda stream, seal: ("1-0", {b"r": b"junk"}), id="not-sealed"),
        pytest.param(lambda stream, seal: ("1-0", {b"x": b"junk"}), id="another-field"),
        pytest.param(lambda stream, seal: ("1-0", {b"r": b""}), id="empty"),
        pytest.param(lambda stream, seal: ("2-0", {b"r": seal(stream, 2, encode([HEAD]))}), id="the-first-is-missing"),
        pytest.param(lambda stream, seal: ("1-0", {b"r": seal(stream, 1, b"\x09\x00\x00")}), id="no-frame"),
        pytest.param(lambda stream, seal: ("1-0", {b"r": seal(stream, 1, encode([b"part"]))}), id="a-part-first"),
        pytest.param(lambda stream, seal: ("1-0", {b"r": seal(stream, 1, encode([End(None)]))}), id="an-end-first"),
        pytest.param(lambda stream, seal: ("1-0", {b"r": seal(stream, 1, encode([HEAD, HEAD]))}), id="two-heads"),
    ],
)
async def test_junk_in_a_stream_is_no_answer(start, redis, junk, keys):
    await asks_itself(start, redis, junk, keys)


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(lambda stream, seal: ("1-0", {b"r": seal(stream, 2, encode([HEAD]))}), id="number"),
        pytest.param(lambda stream, seal: ("1-0", {b"r": seal(b"other", 1, encode([HEAD]))}), id="stream"),
        pytest.param(lambda stream, seal: ("1-0", {b"r": sealing(())(stream, 1, encode([HEAD]))}), id="form"),
    ],
)
async def test_a_record_of_another_place_is_no_answer_where_values_are_encrypted(start, redis, junk):
    await asks_itself(start, redis, junk, SECRET)


async def test_a_record_that_is_missing_breaks_the_answer_off(start, redis):
    token = "0123456789abcdef" * 2
    stream, seal = KEYS.flight_stream(KEY, token), sealing(())
    with redis.client() as client:
        client.set(KEYS.flight(KEY).decode(), token + "o.", px=600_000)
        client.xadd(stream.decode(), {b"r": seal(stream, 1, encode([HEAD, b"one "]))}, id="1-0")
        reader = start().fly(Model())
        await heard(reader, 4)
        client.xadd(stream.decode(), {b"r": seal(stream, 3, encode([b"three", End(None)]))}, id="3-0")
    with pytest.raises(UpstreamAborted):
        await whole(reader)
    assert reader.flight.whole() == b"one "


async def test_a_record_that_is_repeated_is_noticed_where_values_are_encrypted(start, redis):
    streams, stream = start(keys=SECRET).coalescer._streams, KEYS.flight_stream(KEY, "t")
    await streams.append(stream, 1, [b"one"], 10)
    assert await streams.read(stream, 0, wait=False) == [[b"one"]]
    async with Servers(parse_redis_url(redis.url)).client as client:
        ((_, fields),) = await client.xrange(stream)
        await client.xadd(stream, fields, id="2-0")
    with pytest.raises(GarbledError):
        await streams.read(stream, 0, wait=False)


@pytest.mark.parametrize("value", ["junk", "", "-" * 34, "0" * 34, "0" * 32 + "x+", "0123456789abcdef" * 2 + "c."])
async def test_a_lease_with_a_value_of_no_replicas_is_left_alone(start, redis, value):
    with redis.client() as client:
        client.set(KEYS.flight(KEY).decode(), value, px=60_000)
    model, replica = Model(), start()
    reader = replica.fly(model)
    await until(lambda: model.calls == 1)
    model.say(b"fine", None)
    assert await whole(reader) == b"fine"


async def test_a_record_is_written_once_however_often_it_is_sent(start):
    streams = start().coalescer._streams
    for _ in range(2):
        await streams.append(b"inference-cache:test:stream", 1, [b"one"], 10)
    await streams.append(b"inference-cache:test:stream", 2, [b"two"], 10)
    assert await streams.read(b"inference-cache:test:stream", 0, wait=False) == [[b"one"], [b"two"]]


async def test_a_reader_that_is_cancelled_stops_even_if_the_client_library_did_not_notice(start):
    replica = start()

    async def deaf(*_: object) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    streams = Streams(replica.hot, cast("Calls", deaf), Sealer(), LASTING)
    reading = asyncio.create_task(streams.read(b"stream", 0, wait=True))
    await asyncio.sleep(0)
    reading.cancel()
    async with within():
        await asyncio.wait((reading,))
    assert reading.cancelled()


async def test_a_lease_of_another_type_is_left_alone(start, redis):
    with redis.client() as client:
        client.lpush(KEYS.flight(KEY).decode(), "junk")
    model, replica = Model(), start()
    model.say(b"fine", None)
    assert await whole(replica.fly(model)) == b"fine"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_garbled(record):
    with suppress(GarbledError):
        decode(record)


@given(st.sampled_from([1, 2, 3, 4, 5, 6]), st.binary(max_size=100) | st.from_regex(r'\[200, "OK", .*', fullmatch=True).map(str.encode))
def test_any_content_of_a_frame_is_an_item_or_garbled(kind, content):
    with suppress(GarbledError):
        decode(bytes([kind]) + len(content).to_bytes(4, "little") + content)


TEXT = st.text(st.characters(exclude_characters="\r\n\0"), max_size=20)
HEADS = st.builds(
    Head,
    st.integers(200, 599),
    TEXT,
    st.lists(st.tuples(st.from_regex(r"[a-z-]{1,10}", fullmatch=True), TEXT), max_size=4).map(tuple),
    st.booleans(),
    st.binary(max_size=32),
    st.builds(Rendition, st.booleans(), st.booleans(), st.booleans()),
)


@given(st.lists(HEADS | st.binary(max_size=50) | st.sampled_from(Stop) | st.just(End(None)) | st.just(End(entry())), max_size=5))
def test_items_come_out_as_they_went_in(items):
    assert decode(encode(items)) == items


@pytest.mark.parametrize(
    "head",
    [
        pytest.param('[200, "OK", [], true, "", [true, true]]', id="short-wishes"),
        pytest.param('["200", "OK", [], true, "", [true, true, true]]', id="status-as-text"),
        pytest.param('[true, "OK", [], true, "", [true, true, true]]', id="status-as-truth"),
        pytest.param('[100, "OK", [], true, "", [true, true, true]]', id="status-of-no-answer"),
        pytest.param('[200, "O\\r\\nK", [], true, "", [true, true, true]]', id="line-break-in-the-reason"),
        pytest.param('[200, "OK", [["a", "b\\r\\nc: d"]], true, "", [true, true, true]]', id="line-break-in-a-header"),
        pytest.param('[200, "OK", [["a b", "c"]], true, "", [true, true, true]]', id="space-in-a-name"),
        pytest.param('[200, "OK", [["", "c"]], true, "", [true, true, true]]', id="no-name"),
        pytest.param('[200, "OK", [], 1, "", [true, true, true]]', id="number-for-truth"),
        pytest.param('[200, "OK", [], true, "xy", [true, true, true]]', id="credential-not-hexadecimal"),
        pytest.param("[" * 100_000, id="nested-deeply"),
    ],
)
def test_heads_that_are_none_are_garbled(head):
    content = head.encode()
    with pytest.raises(GarbledError):
        decode(b"\x01" + len(content).to_bytes(4, "little") + content)


async def test_a_flight_that_fails_inside_does_not_leave_others_waiting(start):
    model = Model()
    _, leading, _, (reader,) = await led(start, model)
    model.say(RuntimeError("a bug"))
    with pytest.raises(SidecarError):
        await whole(leading)
    await until(lambda: model.calls == 2)
    model.say(b"one", None)
    assert await whole(reader) == b"one"
