"""An event, sent as its producer would, to sidecars that share a store: what it concerns is no longer served by any of them."""

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer
from tests.services.event_cache import SECONDS, until
from tests.sidecar.conftest import Client, start_sidecar
from tests.sidecar.features_upstream import FeatureUpstream, body

from inference_cache_sidecar.errors import CannotStart
from inference_cache_toolkit.redis_server import RedisServer

pytestmark = pytest.mark.services
__all__ = ["start_sidecar"]
Start = Callable[..., Awaitable[Client]]
SPEC: dict[str, Any] = {
    "model": {"version": "v1"},
    "sampling": {"cache": "All"},
    "trustedHeaders": {"from": ["127.0.0.1/32"]},
    "semantic": {"mode": "Off", "categories": [{"name": "pricing", "match": {"header": {"x-category": "pricing"}}}]},
}
TAGGED = {"x-inference-cache-tags": "user:7,news"}
PRICING = {"x-category": "pricing"}
_numbers = itertools.count()


@dataclass(frozen=True)
class Source:
    section: dict[str, Any]
    """Of the spec."""
    send: Callable[[str, object], Awaitable[None]]
    until_read: Callable[[int], Awaitable[None]]
    """Returns when so many sidecars read it."""
    readers: int = 1
    """How many of two sidecars carry out each event."""


async def at_once(_: int) -> None:
    """What is sent before somebody reads is read later."""


@pytest.fixture
def stream(redis: RedisServer) -> Source:
    async def send(channel: str, payload: object) -> None:
        # As docs/events.md shows it.
        command = ["redis-cli", "-u", redis.url, "XADD", "inference-cache:events", "MAXLEN", "~", "100000", "*"]
        subprocess.run([*command, "channel", channel, "payload", json.dumps(payload)], check=True, capture_output=True)  # noqa: ASYNC221

    return Source({"redisStream": {}}, send, at_once)


@pytest.fixture
def pubsub(redis: RedisServer) -> Source:
    async def send(channel: str, payload: object) -> None:
        subprocess.run(["redis-cli", "-u", redis.url, "PUBLISH", channel, json.dumps(payload)], check=True, capture_output=True)  # noqa: ASYNC221

    async def until_heard(sidecars: int) -> None:
        with redis.client() as client:
            await until(lambda: client.pubsub_numsub("kb_updates") == [("kb_updates", sidecars)])

    return Source({"pubsub": {}}, send, until_heard, readers=2)


@pytest.fixture
async def kafka(kafka_bootstrap: str) -> AsyncIterator[Source]:
    mark = f"end-to-end-{next(_numbers)}"
    topics = {"modelUpdates": f"{mark}.model_updates", "userActivity": f"{mark}.user_activity", "kbUpdates": f"{mark}.kb_updates"}
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:

        async def send(channel: str, payload: object) -> None:
            await producer.send_and_wait(f"{mark}.{channel}", json.dumps(payload).encode())

        # Topics that are there at the start: new ones are looked for twice a minute.
        for channel in ("model_updates", "user_activity", "kb_updates"):
            await producer.partitions_for(f"{mark}.{channel}")
        yield Source({"kafka": {"bootstrapServers": kafka_bootstrap, "group": mark, "topics": topics}}, send, at_once)


@pytest.fixture(params=["stream", "pubsub", "kafka"])
def source(request: pytest.FixtureRequest) -> Source:
    found: Source = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def sidecars(start_sidecar: Start, redis: RedisServer, source: Source) -> list[Client]:
    started = [await start_sidecar({**SPEC, "invalidation": source.section}, redis_url=redis.url) for _ in range(2)]
    await source.until_read(2)
    return started


@asynccontextmanager
async def flushed(sidecars: list[Client], target: str, source: Source) -> AsyncIterator[None]:
    """The event that is sent inside makes some of the sidecars flush; in the end all have done with it."""
    flushes = [sidecar.running.parts.metrics.flushes for sidecar in sidecars]
    before, applied_before = sum(counts[target] for counts in flushes), await applied(sidecars)
    yield
    await until(lambda: sum(counts[target] for counts in flushes) > before)
    async with asyncio.timeout(SECONDS):
        while await applied(sidecars) < applied_before + source.readers:
            await asyncio.sleep(0.02)


async def applied(sidecars: list[Client]) -> float:
    """Events, of all sidecars."""
    metrics = [await sidecar.metrics() for sidecar in sidecars]
    return sum(value for each in metrics for name, value in each.items() if name.startswith("inference_cache_events_applied_total"))


async def kinds(sidecars: list[Client], what: str, headers: dict[str, str]) -> list[str]:
    """How each of the sidecars answers a question of its own."""
    return [(await sidecar.chat(f"{what} {number}", headers)).kind for number, sidecar in enumerate(sidecars)]


async def stored(sidecars: list[Client], what: str, headers: dict[str, str]) -> None:
    """An answer of each sidecar, which both then have."""
    await kinds(sidecars, what, headers)
    assert await kinds(sidecars, what, headers) == ["exact", "exact"]
    assert (await kinds(sidecars[::-1], what, headers)) == ["exact", "exact"]


@pytest.mark.parametrize(
    ("channel", "payload", "target", "concerned"),
    [
        pytest.param("user_activity", {"user_id": 7}, "tag", ["tagged"], id="user"),
        pytest.param("kb_updates", {"tags": ["news", "unused"]}, "tag", ["tagged"], id="tags"),
        pytest.param("kb_updates", {"category": "pricing"}, "category", ["priced"], id="category"),
        pytest.param("kb_updates", {"all": True}, "all", ["tagged", "priced", "plain"], id="all"),
        pytest.param("model_updates", {"version": "v1"}, "version", ["tagged", "priced", "plain"], id="version"),
        pytest.param("model_updates", {"adapter": "tiny"}, "adapter", ["tagged", "priced", "plain"], id="adapter"),
    ],
)
async def test_what_an_event_concerns_is_served_by_no_sidecar_any_more_and_all_else_by_both(
    sidecars: list[Client], source: Source, channel: str, payload: object, target: str, concerned: list[str]
) -> None:
    headers = {"tagged": TAGGED, "priced": PRICING, "plain": {}}
    for what, given in headers.items():
        await stored(sidecars, what, given)
    async with flushed(sidecars, target, source):
        await source.send(channel, payload)
    for what, given in headers.items():
        wanted = "miss" if what in concerned else "exact"
        assert await kinds(sidecars, what, given) == [wanted, wanted], what


async def test_an_equal_event_later_flushes_again(sidecars: list[Client], source: Source) -> None:
    for _ in range(3):
        await stored(sidecars, "tagged", TAGGED)
        async with flushed(sidecars, "tag", source):
            await source.send("user_activity", {"user_id": "7"})
        assert await kinds(sidecars, "tagged", TAGGED) == ["miss", "miss"]


@pytest.fixture
async def feature_server() -> AsyncIterator[tuple[str, FeatureUpstream]]:
    server = FeatureUpstream()

    async def answer(request: web.Request) -> web.Response:
        given = await server.ask(await request.read())
        return web.Response(body=given, content_type="application/json")

    app = web.Application()
    app.router.add_post("/get-online-features", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", server
    await runner.cleanup()


async def test_activity_makes_every_sidecar_ask_for_the_users_features_again_and_for_no_others(
    start_sidecar: Start, redis: RedisServer, stream: Source, feature_server: tuple[str, FeatureUpstream]
) -> None:
    url, server = feature_server
    spec = {**SPEC, "features": {"upstream": url}, "invalidation": stream.section}
    sidecars = [await start_sidecar(spec, redis_url=redis.url) for _ in range(2)]

    async def read(sidecar: Client) -> Any:
        asked = body(["users:age"], {"user_id": [7, 8]})
        headers = {"Content-Type": "application/json"}
        async with sidecar.session.post(
            f"http://{sidecar.running.features_listen}/get-online-features", data=asked, headers=headers
        ) as got:
            return (await got.json())["results"]

    before = [await read(sidecar) for sidecar in sidecars]
    assert len(server.asked) == 1
    server.change("user_id", 7)
    async with flushed(sidecars, "tag", stream):
        await stream.send("user_activity", {"user_id": "7"})
    after = [await read(sidecar) for sidecar in sidecars]
    assert after[0] == after[1] != before[0]
    assert [request["entities"] for request in server.asked[1:]] == [{"user_id": [7]}]


async def test_a_bad_event_is_counted_in_the_metrics(sidecars: list[Client], source: Source) -> None:
    await source.send("model_updates", {"version": 7})
    async with asyncio.timeout(SECONDS):
        while True:
            metrics = [await sidecar.metrics() for sidecar in sidecars]
            bad = [each['inference_cache_events_bad_total{channel="model_updates"}'] for each in metrics]
            if sum(bad) >= 1:
                break
            await asyncio.sleep(0.05)


async def test_without_a_shared_store_a_stream_and_pubsub_are_warned_of(start_sidecar: Start, caplog: pytest.LogCaptureFixture) -> None:
    await start_sidecar({**SPEC, "invalidation": {"redisStream": {}, "pubsub": {}}})
    for name in ("redisStream", "pubsub"):
        told = f"spec.invalidation.{name} needs the shared store (INFERENCE_CACHE_REDIS_URL): its events are not read"
        assert told in caplog.messages


async def test_without_the_extra_for_kafka_a_sidecar_does_not_start(start_sidecar: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiokafka", None)
    with pytest.raises(CannotStart, match=r"pip install 'inference-cache\[kafka\]'"):
        await start_sidecar({**SPEC, "invalidation": {"kafka": {"bootstrapServers": "127.0.0.1:9"}}})


async def test_sidecars_without_a_shared_store_each_read_all_of_kafka(start_sidecar: Start, kafka: Source) -> None:
    section = {"kafka": {name: value for name, value in kafka.section["kafka"].items() if name != "group"}}
    sidecars = [await start_sidecar({**SPEC, "invalidation": section}) for _ in range(2)]
    for sidecar in sidecars:
        await sidecar.chat("tagged", TAGGED)
        assert (await sidecar.chat("tagged", TAGGED)).kind == "exact"
    await kafka.send("user_activity", {"user_id": 7})
    for sidecar in sidecars:
        await until(lambda flushes=sidecar.running.parts.metrics.flushes: flushes["tag"] == 1)  # type: ignore[misc]
        assert (await sidecar.chat("tagged", TAGGED)).kind == "miss"
