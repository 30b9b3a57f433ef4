"""Sidecars that share a store: what one stored, the others hit; a flush at one is a flush at all."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.sidecar.conftest import Client

from inference_cache_toolkit.redis_server import RedisServer

Start = Callable[..., Awaitable[Client]]


async def test_what_one_stored_the_others_hit_at_once(start_sidecar: Start, redis: RedisServer) -> None:
    first, second = [await start_sidecar(redis_url=redis.url) for _ in range(2)]
    stored = await first.chat("How do I reset my password?")
    found = await second.chat("How do I reset my password?")
    assert (stored.kind, found.kind) == ("miss", "exact")
    assert found.text == stored.text


async def test_what_one_stored_the_others_find_in_other_words(start_sidecar: Start, redis: RedisServer) -> None:
    first, second = [await start_sidecar(redis_url=redis.url) for _ in range(2)]
    await first.chat("How do I reset my password?")
    async with asyncio.timeout(5):
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
