"""The proxy that fails on demand: each fault is the one it says, and over when healed."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from tests.services.fault_proxy import FaultProxy

from inference_cache_toolkit.redis_server import RedisServer

pytestmark = pytest.mark.services
Before = Callable[[int], Awaitable[FaultProxy]]


def client_of(proxy: FaultProxy) -> Redis:
    return Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0), single_connection_client=True)


async def test_large_values_pass_both_ways(redis: RedisServer, start_fault_proxy: Before) -> None:
    proxy = await start_fault_proxy(redis.port)
    value = bytes(range(256)) * 40_000
    async with client_of(proxy) as client:
        await client.set("key", value)
        assert await client.get("key") == value
    assert proxy.accepted == 1


async def test_a_cut_drops_connections_and_refuses_new_ones_until_healed(redis: RedisServer, start_fault_proxy: Before) -> None:
    proxy = await start_fault_proxy(redis.port)
    async with client_of(proxy) as client:
        await client.set("key", "1")
        await proxy.cut()
        assert proxy.connections == 0
        with pytest.raises(RedisConnectionError):
            await client.get("key")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.heal()
        assert await client.get("key") == b"1"


async def test_a_hanging_proxy_accepts_and_answers_only_when_healed(redis: RedisServer, start_fault_proxy: Before) -> None:
    proxy = await start_fault_proxy(redis.port)
    async with client_of(proxy) as old, client_of(proxy) as new:
        await old.set("key", "1")
        proxy.hang()
        answers = [asyncio.create_task(client.get("key")) for client in (old, new)]
        done, _ = await asyncio.wait(answers, timeout=0.3)
        assert not done
        await proxy.heal()
        async with asyncio.timeout(30):
            assert await asyncio.gather(*answers) == [b"1", b"1"]
    assert proxy.accepted == 2


async def test_a_hanging_proxy_can_be_cut(redis: RedisServer, start_fault_proxy: Before) -> None:
    proxy = await start_fault_proxy(redis.port)
    async with client_of(proxy) as client:
        await client.ping()
        proxy.hang()
        answer = asyncio.create_task(client.get("key"))
        await asyncio.wait([answer], timeout=0.1)
        await proxy.cut()
        with pytest.raises(RedisConnectionError):
            await answer


async def test_a_delay_is_added_once_to_commands_sent_together(redis: RedisServer, start_fault_proxy: Before) -> None:
    proxy = await start_fault_proxy(redis.port)
    async with client_of(proxy) as client:
        await client.ping()
        proxy.delay(0.3)
        began = time.monotonic()
        async with client.pipeline(transaction=False) as pipeline:
            for _ in range(1000):
                pipeline.ping()
            await pipeline.execute()
        assert time.monotonic() - began >= 0.3
        proxy.delay(0.0)
        assert await client.ping()


async def test_a_server_that_ends_ends_the_connections_through_the_proxy(redis: RedisServer, start_fault_proxy: Before) -> None:
    proxy = await start_fault_proxy(redis.port)
    async with client_of(proxy) as client:
        await client.ping()
        redis.kill()
        with pytest.raises(RedisConnectionError):
            await client.ping()
