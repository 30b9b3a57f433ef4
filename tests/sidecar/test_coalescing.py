"""Several replicas, one Redis: who asks upstream, who follows, and who must not."""

import asyncio
from dataclasses import replace

import pytest
from multidict import CIMultiDict
from tests.sidecar.coalescing_replicas import (
    DIGEST,
    LASTING,
    LOOKING_LATE,
    PLAIN,
    STREAMED,
    Model,
    Start,
    entry,
    follows,
    heard,
    lease_of,
    led,
    starting,
    streams_of,
    until,
    whole,
    within,
)

from inference_cache_sidecar.coalescing.protocol import flight_key
from inference_cache_sidecar.errors import SidecarError, UpstreamFault
from inference_cache_sidecar.flights import Flight
from inference_cache_sidecar.outcome import Answered, Hit, Miss

pytestmark = pytest.mark.slow

start = starting


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
    _, _, _, (reader,) = await led(start, model, terms=LOOKING_LATE)
    model.say(b"one ", b"two", None)
    assert await whole(reader) == b"one two"
    assert model.calls == 1


async def test_nothing_is_written_while_nobody_waits_but_that_the_flight_has_ended(start, redis):
    model, replica = Model(), start(terms=replace(LASTING, look_seconds=0.001))
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
    model, leader, other = Model(), start(), start(terms=replace(LASTING, followed=1))
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
    leader, other = start(terms=LOOKING_LATE), start()
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


async def test_a_flight_that_fails_inside_does_not_leave_others_waiting(start):
    model = Model()
    _, leading, _, (reader,) = await led(start, model)
    model.say(RuntimeError("a bug"))
    with pytest.raises(SidecarError):
        await whole(leading)
    await until(lambda: model.calls == 2)
    model.say(b"one", None)
    assert await whole(reader) == b"one"
