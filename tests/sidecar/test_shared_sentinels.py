"""Which master is the master: the one that most sentinels name, and no sentinel alone holds anybody up."""

import asyncio
from typing import Any

import pytest
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError
from tests.services.redis_sentinel import NAME, SentinelServers

from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.sentinels import Sentinels
from inference_cache_sidecar.shared.servers import Servers

pytestmark = pytest.mark.slow

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
DOWN, HANGS = "down", "hangs"
SECONDS = 60.0


class Sentinel:
    """Says one thing."""

    def __init__(self, says: Any) -> None:
        self._says = says

    async def sentinel_masters(self) -> dict[str, Any]:
        if self._says == DOWN:
            raise RedisConnectionError
        if self._says == HANGS:
            await asyncio.Event().wait()
        if self._says is None:
            return {}
        host, port = self._says
        state = {"ip": host, "port": port, "is_master": True, "is_sdown": False, "is_odown": False, "num-other-sentinels": 2}
        return {NAME: state}


def asked(*says: Any) -> Sentinels:
    sentinels = Sentinels([])
    sentinels.sentinels = [Sentinel(each) for each in says]
    return sentinels


@pytest.mark.parametrize(
    "says",
    [
        pytest.param((NEW, NEW, NEW), id="all"),
        pytest.param((OLD, NEW, NEW), id="most"),
        pytest.param((DOWN, NEW, NEW), id="one-is-down"),
        pytest.param((HANGS, NEW, NEW), id="one-hangs"),
        pytest.param((None, NEW, NEW), id="one-knows-of-no-such-master"),
        pytest.param((NEW,), id="a-single-one"),
    ],
)
async def test_the_master_is_the_one_that_most_sentinels_name(says: tuple[Any, ...]) -> None:
    async with asyncio.timeout(SECONDS):
        assert await asked(*says).discover_master(NAME) == NEW


@pytest.mark.parametrize(
    "says",
    [
        pytest.param((OLD, NEW, DOWN), id="one-each"),
        pytest.param((NEW, DOWN, DOWN), id="one-of-three"),
        pytest.param((OLD, OLD, NEW, NEW), id="halves"),
        pytest.param((), id="none"),
    ],
)
async def test_where_sentinels_do_not_agree_there_is_no_master(says: tuple[Any, ...]) -> None:
    with pytest.raises(MasterNotFoundError):
        await asked(*says).discover_master(NAME)


async def test_a_sentinel_that_stands_still_holds_nobody_up(sentinel: SentinelServers) -> None:
    servers, master = Servers(parse_redis_url(sentinel.url)), sentinel.master_port()
    sentinel.sentinels[0].pause()
    try:
        async with asyncio.timeout(SECONDS):
            assert await servers.node_of(b"key") == ("127.0.0.1", master)
            assert await servers.client.ping()
    finally:
        sentinel.sentinels[0].resume()
        await servers.close()
