"""Coalescing over a store that is down, hangs, or holds junk; and what lies in it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.sidecar.coalescing_replicas import (
    KEY,
    KEYS,
    SHORT,
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

from inference_cache_sidecar.coalescing.records import End, GarbledError, Head, encode
from inference_cache_sidecar.coalescing.terms import Terms
from inference_cache_sidecar.errors import UpstreamAborted
from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.sealing import Sealer
from inference_cache_sidecar.shared.servers import Servers

pytestmark = pytest.mark.slow

start = starting


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
    took, made = [], []
    for _ in range(10):
        begun = loop.time()
        await whole(replica.fly(model))
        took.append(loop.time() - begun)
        made.append(replica.hot.counts.made)
    assert len(set(made)) == 1, "it was asked again"
    redis.resume()
    assert sorted(took)[5] < 0.2, took
    assert max(took) < 5.0, took


async def test_a_lease_that_came_too_late_counts_when_it_turns_out_to_be_had(start, redis):
    model, leader = Model(), start()
    async with within():
        await leader.hot.get(b"connected")
    redis.pause()
    leader.expect(0.05)
    leading = leader.fly(model)
    await until(model.asked.is_set)
    leader.expect(10.0, slack=20.0)
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
    made = first.hot.counts.made
    reader = first.fly(model)
    await until(lambda: first.hot.counts.made > made)
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
    leader, leading, (other,), (reader,) = await led(start, model)
    model.say(b"one ")
    await heard(reader, 4)
    leader.expect(0.1)
    other.expect(0.1)
    made = other.calls.counts.made
    await until(lambda: other.calls.counts.made > made)
    redis.pause()
    model.say(b"two ")
    await heard(leading, 8)
    await until(lambda: leader.hot.counts.late and other.calls.counts.late)
    redis.resume()
    model.say(b"three", None)
    assert await whole(reader) == b"one two three"
    assert model.calls == 1


async def test_a_store_that_goes_in_mid_answer_harms_no_caller_of_the_leader(start, redis):
    model = Model()
    leader, leading, _, (reader,) = await led(start, model, terms=replace(SHORT, patience_seconds=1.0))
    model.say(b"one ")
    await heard(reader, 4)
    redis.kill()
    model.say(b"two", None)
    assert await whole(leading) == b"one two"
    with pytest.raises(UpstreamAborted):
        await whole(reader)
    await until(lambda: not leader.coalescer._tellers)


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


async def test_a_lease_of_another_type_is_left_alone(start, redis):
    with redis.client() as client:
        client.lpush(KEYS.flight(KEY).decode(), "junk")
    model, replica = Model(), start()
    model.say(b"fine", None)
    assert await whole(replica.fly(model)) == b"fine"
