"""Events from real Redis servers: a stream's are carried out, each once for all replicas, whatever breaks; pub/sub's while they listen."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from tests.services.event_cache import SECONDS, Cache, until
from tests.services.redis_sentinel import SentinelServers

from inference_cache_contract.keyspace import Keyspace
from inference_cache_contract.spec_invalidation import RedisStream
from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.events import pubsub, turn
from inference_cache_sidecar.events.handling import Outcome
from inference_cache_sidecar.events.payloads import CHANNELS
from inference_cache_sidecar.events.pubsub import PubsubEvents
from inference_cache_sidecar.events.redis_stream import TIDY, StreamEvents
from inference_cache_sidecar.events.turn import LEASE_SECONDS, Turn
from inference_cache_sidecar.shared import servers as shared_servers
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.calls import Calls
from inference_cache_sidecar.shared.servers import Servers
from inference_cache_sidecar.tasks import ended
from inference_cache_toolkit.redis_server import RedisServer

pytestmark = pytest.mark.services
GROUP = "test"
PATIENT = RedisStream()
HASTY = replace(PATIENT, claim_seconds=1.0)
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a second breaks no connection: what is tested here is what becomes of events."""
    monkeypatch.setattr(shared_servers, "CONNECT_SECONDS", 10.0)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Servers]:
    servers = Servers(parse_redis_url(url))
    try:
        yield servers
    finally:
        await servers.close()


@asynccontextmanager
async def running(events: StreamEvents | PubsubEvents) -> AsyncIterator[None]:
    task = asyncio.create_task(events.run())
    try:
        yield
    finally:
        assert not task.done(), "a source never ends by itself"
        await ended([task])


@asynccontextmanager
async def reading(url: str, cache: Cache, source: RedisStream = PATIENT) -> AsyncIterator[None]:
    """A replica that reads the stream."""
    async with connected(url) as servers:
        calls = Calls(servers, Breaker(BreakerSettings(3, 0.2)), 1.0)
        async with running(StreamEvents(calls, source, GROUP, f"replica-{next(_numbers)}", cache.handler)):
            yield


async def send(url: str, channel: str, *payloads: object) -> None:
    await send_raw(url, *({"channel": channel, "payload": json.dumps(payload)} for payload in payloads))


async def send_raw(url: str, *records: dict[str, str | bytes]) -> None:
    async with connected(url) as servers:
        for fields in records:
            await servers.client.xadd(PATIENT.stream, fields)  # type: ignore[arg-type]  # its own types are narrower than what it takes


def pending(redis: RedisServer) -> int:
    with redis.client() as client:
        return client.xpending(PATIENT.stream, GROUP)["pending"]


def dead_letters(redis: RedisServer) -> list[dict[str, str]]:
    with redis.client() as client:
        return [fields for _, fields in client.xrange(PATIENT.dead_letters)]


async def test_events_of_every_channel_are_carried_out_also_those_sent_before(shared_server: str) -> None:
    cache = Cache()
    await send(shared_server, "model_updates", {"version": "v1"}, {"adapter": "sql"})
    async with reading(shared_server, cache):
        await until(lambda: len(cache.flushed) == 2)
        await send(shared_server, "user_activity", {"user_id": 7})
        await send(shared_server, "kb_updates", {"tags": ["a", "b"]}, {"all": True})
        await until(lambda: len(cache.flushed) == 6)
    assert sorted(cache.flushed) == ["adapter sql", "all", "tag a", "tag b", "tag user:7", "version v1"]
    assert cache.forgotten == ["user_id 7"]
    assert cache.outcomes(Outcome.APPLIED) == 5


async def test_of_several_replicas_one_handles_each_event(shared_server: str) -> None:
    caches = [Cache(), Cache(), Cache()]
    async with reading(shared_server, caches[0]), reading(shared_server, caches[1]), reading(shared_server, caches[2]):
        sent = 0
        async with asyncio.timeout(SECONDS):
            # Until the last of them has connected, too, and has its share.
            while sent < 600 or not all(cache.flushed for cache in caches):
                await send(shared_server, "kb_updates", *({"tags": [str(number)]} for number in range(sent, sent + 20)))
                sent += 20
        await until(lambda: sum(len(cache.flushed) for cache in caches) >= sent)
    flushed = [tag for cache in caches for tag in cache.flushed]
    assert sorted(flushed) == sorted(f"tag {number}" for number in range(sent))


async def test_a_new_replica_goes_on_where_the_last_one_stopped(redis: RedisServer) -> None:
    before, after = Cache(), Cache()
    await send(redis.url, "model_updates", {"version": "v1"})
    async with reading(redis.url, before):
        await until(lambda: before.flushed == ["version v1"] and pending(redis) == 0)
    await send(redis.url, "model_updates", {"version": "v2"})
    async with reading(redis.url, after):
        await until(lambda: after.flushed == ["version v2"])


async def test_what_a_replica_took_and_did_not_finish_another_takes_over(redis: RedisServer) -> None:
    dead, alive = Cache(down=True), Cache()
    await send(redis.url, "model_updates", {"version": "v1"})
    async with reading(redis.url, dead, HASTY):
        await until(lambda: dead.outcomes(Outcome.FAILED) >= 1)
    async with reading(redis.url, alive, HASTY):
        await until(lambda: alive.flushed == ["version v1"] and pending(redis) == 0)


async def test_what_could_not_be_done_is_tried_again_and_not_acknowledged_before(redis: RedisServer) -> None:
    cache = Cache(down=True)
    await send(redis.url, "model_updates", {"version": "v1"}, {"version": 0})
    async with reading(redis.url, cache):
        await until(lambda: cache.outcomes(Outcome.FAILED) >= 3)
        assert pending(redis) == 1
        cache.down = False
        await until(lambda: cache.flushed == ["version v1"] and pending(redis) == 0)


async def test_bad_events_are_put_aside_with_the_reason_and_those_behind_them_are_carried_out(redis: RedisServer) -> None:
    cache = Cache()
    await send(redis.url, "model_updates", {"version": 5})
    await send_raw(redis.url, {"unknown": "field"}, {"channel": b"\xff", "payload": b"\xff"})
    await send(redis.url, "kb_updates", {"all": True})
    async with reading(redis.url, cache):
        await until(lambda: cache.flushed == ["all"] and pending(redis) == 0)
    first, second, third = dead_letters_as_bytes(redis)
    assert (first[b"channel"], first[b"payload"], first[b"group"]) == (b"model_updates", b'{"version": 5}', b"test")
    assert first[b"reason"].startswith(b"version: an integer")
    assert b"-" in first[b"id"]
    assert second[b"reason"].startswith(b"'' is none of the channels")
    assert third[b"payload"] == b"\xff"
    assert (cache.outcomes(Outcome.BAD), cache.counts.dead_letters["redis-stream"]) == (3, 3)


async def test_a_bad_event_that_cannot_be_put_aside_is_skipped_all_the_same(redis: RedisServer) -> None:
    cache = Cache()
    with redis.client() as client:
        client.set(PATIENT.dead_letters, "no stream")
    await send(redis.url, "model_updates", {"version": 5}, {"version": "v1"})
    async with reading(redis.url, cache):
        await until(lambda: cache.flushed == ["version v1"] and pending(redis) == 0)
    assert cache.counts.dead_letters["redis-stream"] == 0


async def test_an_event_that_fails_in_a_way_nobody_foresaw_is_put_aside_in_the_end(redis: RedisServer) -> None:
    cache = Cache(broken_by="v1")
    await send(redis.url, "model_updates", {"version": "v1"}, {"version": "v2"})
    async with reading(redis.url, cache):
        await until(lambda: bool(dead_letters(redis)) and pending(redis) == 0)
    (letter,) = dead_letters(redis)
    assert letter["payload"] == '{"version": "v1"}'
    assert letter["reason"].startswith("ValueError at event_cache.py")
    assert (cache.flushed, cache.outcomes(Outcome.BROKEN)) == (["version v2"], 5)


async def test_an_event_that_replicas_die_of_is_put_aside_without_being_handled(redis: RedisServer) -> None:
    cache = Cache()
    with redis.client() as client:
        client.xgroup_create(PATIENT.stream, GROUP, id="0", mkstream=True)
        deadly, harmless = (client.xadd(PATIENT.stream, {"channel": "kb_updates", "payload": text}) for text in ('{"all": true}', "{}"))
        client.xreadgroup(GROUP, "dead", {PATIENT.stream: ">"})
        client.xclaim(PATIENT.stream, GROUP, "dead", 0, [deadly], idle=60_000, retrycount=5)
        client.xclaim(PATIENT.stream, GROUP, "dead", 0, [harmless], idle=60_000, retrycount=4)
    async with reading(redis.url, cache):
        await until(lambda: len(dead_letters(redis)) == 2 and pending(redis) == 0)
    assert dead_letters(redis)[0]["reason"] == "taken again and again, never acknowledged"
    assert (cache.flushed, cache.outcomes(Outcome.BAD)) == ([], 1)


async def test_an_event_that_was_deleted_after_it_was_taken_holds_up_nobody(redis: RedisServer) -> None:
    cache = Cache()
    with redis.client() as client:
        client.xgroup_create(PATIENT.stream, GROUP, id="0", mkstream=True)
        taken = client.xadd(PATIENT.stream, {"channel": "kb_updates", "payload": "{}"})
        client.xreadgroup(GROUP, "dead", {PATIENT.stream: ">"})
        client.xclaim(PATIENT.stream, GROUP, "dead", 0, [taken], idle=60_000)
        client.xdel(PATIENT.stream, taken)
    await send(redis.url, "kb_updates", {"all": True})
    async with reading(redis.url, cache):
        await until(lambda: cache.flushed == ["all"] and pending(redis) == 0)


@pytest.mark.parametrize(
    "lose", [pytest.param(lambda client: client.delete(PATIENT.stream), id="deleted"), lambda client: client.flushall()]
)
async def test_a_stream_that_is_gone_is_read_again_once_it_is_there(redis: RedisServer, lose: Callable[..., object]) -> None:
    cache = Cache()
    await send(redis.url, "model_updates", {"version": "v1"})
    async with reading(redis.url, cache):
        await until(lambda: cache.flushed == ["version v1"])
        with redis.client() as client:
            lose(client)
        await send(redis.url, "model_updates", {"version": "v2"})
        await until(lambda: cache.flushed == ["version v1", "version v2"])


@pytest.fixture
def own_redis(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """A server that keeps what it has on disk."""
    return start_redis(config=("appendonly yes", "appendfsync always"))


async def test_a_server_that_is_down_at_start_and_one_that_goes_away_are_waited_for(own_redis: RedisServer) -> None:
    cache = Cache()
    own_redis.stop()
    async with reading(own_redis.url, cache):
        await until(lambda: cache.counts.interruptions["redis-stream"] >= 2)
        await asyncio.to_thread(own_redis.start)
        await send(own_redis.url, "model_updates", {"version": "v1"})
        await until(lambda: cache.flushed == ["version v1"])
        await asyncio.to_thread(own_redis.kill)
        await asyncio.to_thread(own_redis.start)
        await send(own_redis.url, "model_updates", {"version": "v2"})
        await until(lambda: "version v2" in cache.flushed)
        await asyncio.to_thread(own_redis.pause)
        await until(lambda: cache.counts.interruptions["redis-stream"] >= 4)
        await asyncio.to_thread(own_redis.resume)
        await send(own_redis.url, "model_updates", {"version": "v3"})
        await until(lambda: "version v3" in cache.flushed)


def lose_master(sentinel: SentinelServers) -> None:
    sentinel.promoted(sentinel.kill_master().port)


@pytest.mark.parametrize("lose", [pytest.param(SentinelServers.failover, id="ordered"), pytest.param(lose_master, id="master-killed")])
async def test_after_a_failover_events_are_handled_again(sentinel: SentinelServers, lose: Callable[[SentinelServers], object]) -> None:
    by_stream, by_pubsub = Cache(), Cache()
    async with reading(sentinel.url, by_stream), listening(sentinel.url, by_pubsub):
        await send(sentinel.url, "model_updates", {"version": "v1"})
        await until(lambda: by_stream.flushed == ["version v1"])
        await asyncio.to_thread(lose, sentinel)
        await send(sentinel.url, "model_updates", {"version": "v2"})
        await until(lambda: "version v2" in by_stream.flushed)
        await heard(sentinel.url, by_pubsub)


async def test_replicas_that_are_long_gone_are_struck_off_unless_they_left_something_behind(redis: RedisServer) -> None:
    with redis.client() as client:
        client.xgroup_create(PATIENT.stream, GROUP, mkstream=True)
        client.xadd(PATIENT.stream, {"channel": "kb_updates", "payload": "{}"})
        client.xgroup_createconsumer(PATIENT.stream, GROUP, "gone")
        client.xreadgroup(GROUP, "gone-in-the-middle", {PATIENT.stream: ">"})
        await asyncio.sleep(0.05)
        assert client.eval(TIDY, 1, PATIENT.stream, GROUP, 3_600_000) == 0
        assert client.eval(TIDY, 1, PATIENT.stream, GROUP, 20) == 1
        assert [consumer["name"] for consumer in client.xinfo_consumers(PATIENT.stream, GROUP)] == ["gone-in-the-middle"]


def dead_letters_as_bytes(redis: RedisServer) -> list[dict[bytes, bytes]]:
    with redis.client() as client:
        client.connection_pool.connection_kwargs["decode_responses"] = False
        return [fields for _, fields in client.xrange(PATIENT.dead_letters)]


@asynccontextmanager
async def listening(url: str, cache: Cache) -> AsyncIterator[None]:
    """A replica that has begun to hear what is published."""
    async with connected(url) as servers, running(PubsubEvents(servers, {channel: channel for channel in CHANNELS}, cache.handler)):
        await heard(url, cache)
        yield


async def heard(url: str, cache: Cache) -> None:
    """Until something that is published now is heard."""
    mark = f"mark-{next(_numbers)}"
    async with asyncio.timeout(60):
        while f"tag {mark}" not in cache.flushed:
            await publish(url, "kb_updates", {"tags": [mark]})
            await asyncio.sleep(0.05)
    cache.flushed.clear()


async def publish(url: str, channel: str, payload: object) -> None:
    async with connected(url) as servers:
        for client in await servers.masters():
            await client.publish(channel, json.dumps(payload))
            return


async def test_what_is_published_is_carried_out_by_every_replica(shared_server: str) -> None:
    caches = [Cache(), Cache(), Cache()]
    async with listening(shared_server, caches[0]), listening(shared_server, caches[1]), listening(shared_server, caches[2]):
        await publish(shared_server, "model_updates", {"version": "v1"})
        await publish(shared_server, "user_activity", {"user_id": "u1"})
        await publish(shared_server, "kb_updates", {"category": "pricing"})
        for cache in caches:
            await until(lambda cache=cache: {"version v1", "tag user:u1", "category pricing"} <= set(cache.flushed))  # type: ignore[misc]


async def test_a_bad_message_is_counted_and_skipped(redis: RedisServer) -> None:
    cache = Cache()
    async with listening(redis.url, cache):
        await publish(redis.url, "model_updates", {"version": 5})
        await publish(redis.url, "model_updates", {"version": "v1"})
        # Marks of `heard` may still come.
        await until(lambda: "version v1" in cache.flushed)
    assert cache.outcomes(Outcome.BAD) == 1


async def test_after_the_server_was_away_or_silent_what_is_published_is_heard_again(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "SILENCE_SECONDS", 0.5)
    cache = Cache()
    async with listening(own_redis.url, cache):
        await asyncio.to_thread(own_redis.kill)
        await until(lambda: cache.counts.interruptions["pubsub"] >= 1)
        await asyncio.to_thread(own_redis.start)
        await heard(own_redis.url, cache)
        interruptions = cache.counts.interruptions["pubsub"]
        await asyncio.to_thread(own_redis.pause)
        await until(lambda: cache.counts.interruptions["pubsub"] > interruptions)
        await asyncio.to_thread(own_redis.resume)
        await heard(own_redis.url, cache)


async def test_it_is_the_turn_of_one_replica_and_of_another_once_that_is_gone(shared_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that stands still for some seconds must not hand it on.
    monkeypatch.setattr(turn, "_MS", int(4 * LEASE_SECONDS * 1000))
    async with connected(shared_server) as servers:
        calls = Calls(servers, Breaker(BreakerSettings(3, 0.2)), 1.0)
        first, second = (Turn(calls, Keyspace("test"), name) for name in ("first", "second"))
        first_task = asyncio.create_task(first.run())
        await until(lambda: first.mine)
        second.mine = True  # until it has asked
        second_task = asyncio.create_task(second.run())
        await until(lambda: not second.mine)
        await prolonged(servers, Keyspace("test").events_turn())
        assert not second.mine
        await until(lambda: first.mine)
        await ended([first_task])
        await until(lambda: second.mine)
        await ended([second_task])


async def prolonged(servers: Servers, key: str) -> None:
    """Until a lease has more time than a moment before; it must not come near its end meanwhile."""
    left = before = await servers.client.pttl(key)
    async with asyncio.timeout(SECONDS):
        while left <= before:
            assert left > 1000, "nobody has lengthened it"
            await asyncio.sleep(0.05)
            before, left = left, await servers.client.pttl(key)


async def test_a_silent_time_is_no_interruption(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub, "SILENCE_SECONDS", 4.0)
    cache = Cache()
    async with listening(redis.url, cache):
        await asyncio.sleep(10)
        await publish(redis.url, "model_updates", {"version": "v1"})
        await until(lambda: "version v1" in cache.flushed)
    assert cache.counts.interruptions["pubsub"] == 0
