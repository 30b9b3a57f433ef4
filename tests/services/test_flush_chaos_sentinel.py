"""After the acknowledgement of a flush no replica gives what was flushed, whatever becomes of the master that was told of it.

Three sidecars in processes of their own, asked all the time, share a store that Sentinel watches.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.services.chaos import Chaos, chaos
from tests.services.chaos_traffic import TAGS, judge
from tests.services.redis_sentinel import SentinelServers, sentinel_servers

pytestmark = [pytest.mark.services, pytest.mark.asyncio(loop_scope="module")]
TAG = {"tag": TAGS[1]}


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelServers]:
    with sentinel_servers(tmp_path_factory.mktemp("sentinels")) as servers:
        yield servers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_with_sentinel(tmp_path_factory: pytest.TempPathFactory, sentinels: SentinelServers) -> AsyncIterator[Chaos]:
    async with chaos(tmp_path_factory.mktemp("chaos"), url=sentinels.url) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def watched(running_with_sentinel: Chaos, sentinels: SentinelServers) -> Chaos:
    """Three replicas whose store has a master, a replica and three sentinels."""
    await asyncio.to_thread(sentinels.whole)
    await running_with_sentinel.whole()
    return running_with_sentinel


async def test_a_failover_after_a_flush_brings_nothing_flushed_back(watched: Chaos, sentinels: SentinelServers) -> None:
    async with watched.asked() as traffic:
        flushed = await watched.flushed(0, TAG)
        await asyncio.to_thread(sentinels.failover)
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


@pytest.mark.parametrize("replica", [0, 1])
async def test_a_flush_while_the_former_master_lives_on_is_one_everywhere(watched: Chaos, sentinels: SentinelServers, replica: int) -> None:
    async with watched.asked() as traffic:
        failing_over = asyncio.create_task(asyncio.to_thread(sentinels.failover))
        first, _ = await watched.flush_until_acknowledged(replica, {"tag": TAGS[0]})
        await failing_over
        second, _ = await watched.flush_until_acknowledged(replica, TAG)
        await watched.replicas[2].kill()
        await watched.replicas[2].start()
        await traffic.outlasts(second)
    judge(traffic, first, second)


async def test_a_flush_that_a_failover_loses_is_made_good(watched: Chaos, sentinels: SentinelServers) -> None:
    """The server that is promoted has heard nothing of the flush."""
    (behind,) = sentinels.replicas()
    async with watched.asked() as traffic:
        await asyncio.to_thread(behind.pause)
        flushed = await watched.flushed(0, TAG)
        old = await asyncio.to_thread(sentinels.kill_master)
        behind.resume()
        await asyncio.to_thread(sentinels.promoted, old.port)
        await watched.replicas[2].kill()
        await watched.replicas[2].start()
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


async def test_a_master_that_comes_back_brings_nothing_flushed_back(watched: Chaos, sentinels: SentinelServers) -> None:
    """It stood still while another was promoted, and takes itself for the master for some seconds more."""
    old = sentinels.master()
    async with watched.asked() as traffic:
        await asyncio.to_thread(old.pause)
        await asyncio.to_thread(sentinels.promoted, old.port)
        flushed, _ = await watched.flush_until_acknowledged(0, TAG)
        old.resume()
        await traffic.outlasts(flushed)
    judge(traffic, flushed)
