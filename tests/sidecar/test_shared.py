"""Sidecars that share a store: what one stored, the others hit; a flush at one is a flush at all."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.sidecar.conftest import PATIENCE, Client, Gate, until_asked

from inference_cache_toolkit.redis_server import RedisServer
from inference_cache_toolkit.standin.state import Standin

Start = Callable[..., Awaitable[Client]]


async def test_what_one_stored_the_others_hit_at_once(start_sidecar: Start, redis: RedisServer) -> None:
    first, second = [await start_sidecar(redis_url=redis.url) for _ in range(2)]
    stored = await first.chat("How do I reset my password?")
    found = await second.chat("How do I reset my password?")
    assert (stored.kind, found.kind) == ("miss", "exact")
    assert found.text == stored.text


async def test_a_sidecar_that_has_started_waits_for_no_connection_to_the_store(start_sidecar: Start, redis: RedisServer) -> None:
    client = await start_sidecar(redis_url=redis.url)
    assert client.running.shared is not None
    assert client.running.shared.hot.linked


async def test_what_one_stored_the_others_find_in_other_words(start_sidecar: Start, redis: RedisServer) -> None:
    first, second = [await start_sidecar(redis_url=redis.url) for _ in range(2)]
    await first.chat("How do I reset my password?")
    async with asyncio.timeout(PATIENCE):
        while second.running.store.stats().vectors == 0:
            await asyncio.sleep(0.01)
    assert (await second.chat("How can I reset my password?")).kind == "semantic"


async def test_a_flush_at_one_is_a_flush_at_all(start_sidecar: Start, redis: RedisServer) -> None:
    first, second = [await start_sidecar(redis_url=redis.url) for _ in range(2)]
    for client in (first, second):
        await client.chat("How do I reset my password?")
    flushed = await first.administer("/flush", {"all": True})
    assert flushed.status == 200, flushed.body
    assert flushed.json()["flushed"] == 1
    assert (await second.chat("How do I reset my password?")).kind == "miss"
    assert (await first.chat("How do I reset my password?")).kind == "exact"


async def test_a_flush_at_one_keeps_those_who_come_later_out_of_flights_at_others(
    start_sidecar: Start, redis: RedisServer, standin: Standin, gate: Gate
) -> None:
    first, second = [await start_sidecar(redis_url=redis.url) for _ in range(2)]
    begun = asyncio.create_task(second.chat("How do I reset my password?"))
    await until_asked(standin)
    assert (await first.administer("/flush", {"all": True})).status == 200
    asking = asyncio.create_task(second.chat("How do I reset my password?"))
    await until_asked(standin, 2)
    gate.open()
    late = await asking
    assert "collapsed" not in late.cache_status
    assert (await begun).status == 200


@pytest.mark.parametrize("semantic", [pytest.param("Serve", id="with-similarity"), pytest.param("Off", id="exact-only")])
async def test_a_key_that_is_flushed_at_one_is_soon_gone_at_the_others(start_sidecar: Start, redis: RedisServer, semantic: str) -> None:
    spec = {"semantic": {"mode": semantic}}
    first, second = [await start_sidecar(spec, redis_url=redis.url) for _ in range(2)]
    stored = await first.chat("How do I reset my password?")
    assert (await second.chat("How do I reset my password?")).kind == "exact"
    key = stored.cache_status.partition('key="')[2].partition('"')[0]
    assert (await first.administer("/flush", {"key": key})).json()["flushed"] == 1
    async with asyncio.timeout(PATIENCE):
        while (await second.chat("How do I reset my password?", {"Cache-Control": "only-if-cached"})).status == 200:
            await asyncio.sleep(0.01)
