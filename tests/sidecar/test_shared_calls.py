"""Calls of the shared store: in time, in number, by whose fault, and ended when they are told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.errors import StoreRefused, StoreUnavailable
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.calls import OUTSTANDING, Calls
from inference_cache_sidecar.shared.servers import Servers


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    servers = Servers(parse_redis_url("redis://127.0.0.1:1/0"))
    yield Calls(servers, Breaker(BreakerSettings(failures=2)), 0.05)
    await servers.close()


async def answered(_: Redis) -> str:
    return "fine"


async def never(_: Redis) -> None:
    await asyncio.Event().wait()


def failing(error: Exception):  # type: ignore[no-untyped-def]
    async def ask(_: Redis) -> None:
        raise error

    return ask


async def test_a_late_call_fails_by_its_deadline_and_two_open_the_breaker(calls: Calls) -> None:
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="in time"):
            await calls(never)
    assert calls.breaker.is_open
    with pytest.raises(StoreUnavailable, match="rest"):
        await calls(answered)
    assert (calls.counts.made, calls.counts.failed, calls.counts.late, calls.counts.refused) == (2, 2, 2, 1)
    assert await calls(answered, trial=True) == "fine"
    assert await calls(answered) == "fine"


@pytest.mark.parametrize(
    ("error", "becomes", "counts"),
    [
        pytest.param(RedisConnectionError("host secret:6379"), StoreUnavailable, 1, id="gone"),
        pytest.param(OSError(111, "refused"), StoreUnavailable, 1, id="refused"),
        pytest.param(OutOfMemoryError("OOM key prompt"), StoreRefused, 0, id="full"),
        pytest.param(ResponseError("WRONGTYPE of secret"), StoreRefused, 0, id="wrong-type"),
    ],
)
async def test_what_the_library_raises_becomes_ours_and_quotes_nothing(
    calls: Calls, error: Exception, becomes: type[Exception], counts: int
) -> None:
    with pytest.raises(becomes) as raised:
        await calls(failing(error))
    assert "secret" not in str(raised.value)
    assert "prompt" not in str(raised.value)
    assert calls.counts.failed == counts


async def test_no_more_than_some_wait_at_once(calls: Calls) -> None:
    waiting = [asyncio.create_task(calls(never, 30.0)) for _ in range(OUTSTANDING)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="too many"):
        await calls(answered)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await calls(answered) == "fine"


async def test_a_cancelled_call_ends_even_if_the_library_did_not_notice(calls: Calls) -> None:
    async def deaf(_: Redis) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    calling = asyncio.create_task(calls(deaf, 30.0))
    await asyncio.sleep(0)
    calling.cancel()
    await asyncio.wait((calling,), timeout=10)
    assert calling.cancelled()
