"""The feature cache as a part of a sidecar: listening beside it, flushed by events, sharing through the store."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from tests.sidecar.conftest import Client

from inference_cache_toolkit.redis_server import RedisServer

Start = Callable[..., Awaitable[Client]]
PATH = "/get-online-features"
ASKED = {"features": ["user_stats:age"], "entities": {"user_id": [1, 2]}}


class FeatureServer:
    """Answers as Feast does, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.age = 30

    async def answer(self, request: web.Request) -> web.Response:
        self.calls += 1
        users = (await request.json())["entities"]["user_id"]
        columns = [users, [self.age for _ in users]]
        results = [
            {"values": column, "statuses": ["PRESENT"] * len(users), "event_timestamps": ["2026-01-01T00:00:00Z"] * len(users)}
            for column in columns
        ]
        return web.json_response({"metadata": {"feature_names": ["user_id", "age"]}, "results": results})


@pytest.fixture
async def feature_server(aiohttp_runner: Callable[[web.Application], Awaitable[str]]) -> tuple[FeatureServer, str]:
    server, app = FeatureServer(), web.Application()
    app.router.add_post(PATH, server.answer)
    return server, await aiohttp_runner(app)


@pytest.fixture
async def aiohttp_runner():  # type: ignore[no-untyped-def]
    runners = []

    async def start(app: web.Application) -> str:
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def ages(client: Client) -> tuple[list[int], str]:
    assert client.running.features_listen is not None
    async with aiohttp.ClientSession() as session, session.post(f"http://{client.running.features_listen}{PATH}", json=ASKED) as answer:
        told = await answer.json()
        return told["results"][1]["values"], answer.headers["Cache-Status"]


async def test_features_are_cached_shared_and_dropped_when_a_user_did_something(
    start_sidecar: Start, redis: RedisServer, feature_server: tuple[FeatureServer, str]
) -> None:
    server, url = feature_server
    spec = {"features": {"upstream": url}, "invalidation": {"redisStream": {}}}
    first, second = [await start_sidecar(spec, redis_url=redis.url) for _ in range(2)]
    assert (await ages(first))[0] == [30, 30]
    calls = server.calls
    assert (await ages(first))[0] == [30, 30]
    found, status = await ages(second)
    assert found == [30, 30]
    assert "hit" in status
    assert server.calls <= calls + 1
    server.age = 31
    with redis.client() as client:
        client.xadd("inference-cache:events", {"channel": "user_activity", "payload": '{"user_id": 1}'})
    async with asyncio.timeout(15):
        while (found := (await ages(second))[0])[0] == 30:
            await asyncio.sleep(0.02)
    assert found == [31, 30]


async def test_without_a_feature_server_nothing_listens(start_sidecar: Start) -> None:
    assert (await start_sidecar()).running.features_listen is None
