"""After the acknowledgement of a flush no replica gives what was flushed, whatever is cut off, stopped, killed, rolled back or evicted.

Three sidecars in processes of their own, asked all the time; most answers are hits before the flush and after it.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import pytest
import pytest_asyncio
from tests.services.chaos import LEASE_SECONDS, REPLICAS, VERSION, Chaos, NotFlushedError, chaos, until
from tests.services.chaos_traffic import CATEGORY, MOSTLY, TAGS, WINDOW_SECONDS, Flushed, Question, Traffic, answer
from tests.services.redis_sentinel import SentinelServers, sentinel_servers

from inference_cache_contract.keyspace import Keyspace
from inference_cache_toolkit.redis_server import RedisServer, redis_server
from inference_cache_toolkit.standin.state import Pace

pytestmark = [pytest.mark.services, pytest.mark.asyncio(loop_scope="module")]
ALL = {"all": True}
TAG = {"tag": TAGS[1]}
KEYS = Keyspace("inference-cache")
SLACK_SECONDS = 1.5
"""What a busy machine may add to the acknowledgement of a flush."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, store: RedisServer) -> AsyncIterator[Chaos]:
    async with chaos(tmp_path_factory.mktemp("chaos"), [store.port] * REPLICAS) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def three(running: Chaos) -> Chaos:
    """Three replicas, all up and none cut off."""
    await running.whole()
    return running


@asynccontextmanager
async def asked(three: Chaos) -> AsyncIterator[Traffic]:
    """Asked all the time, most answers being hits."""
    async with three.traffic().running() as traffic:
        await traffic.warm()
        yield traffic


def judge(traffic: Traffic, flushed: Flushed) -> None:
    assert traffic.forbidden(flushed) == []
    assert traffic.hits(flushed.sent - WINDOW_SECONDS, flushed.sent) >= MOSTLY


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(ALL, id="all"),
        pytest.param({"version": VERSION}, id="version"),
        pytest.param(TAG, id="tag"),
        pytest.param({"category": CATEGORY}, id="category"),
    ],
)
async def test_a_flush_is_one_everywhere_at_once_and_leaves_the_rest(three: Chaos, target: Mapping[str, object]) -> None:
    async with asked(three) as traffic:
        before = three.generations.now
        flushed = await three.flush(0, target)
        await traffic.outlasts(flushed)
    judge(traffic, flushed)
    assert flushed.seconds < SLACK_SECONDS
    rest = [each for each in traffic.heard if each.started > flushed.acknowledged and not each.question.is_flushed_by(target)]
    assert all(each.is_hit and each.generation is not None and each.generation <= before for each in rest)


@pytest.mark.parametrize("fault", ["cut", "hang"])
@pytest.mark.parametrize("target", [pytest.param(ALL, id="all"), pytest.param(TAG, id="tag")])
async def test_a_replica_that_is_cut_off_serves_nothing_flushed(three: Chaos, fault: str, target: Mapping[str, object]) -> None:
    proxy = three.proxies[2]
    async with asked(three) as traffic:
        if fault == "cut":
            await proxy.cut()
        else:
            proxy.hang()
        flushed = await three.flush(0, target)
        await traffic.goes_on(SLACK_SECONDS)
        await proxy.heal()
        await traffic.outlasts(flushed)
    judge(traffic, flushed)
    assert flushed.seconds < LEASE_SECONDS + SLACK_SECONDS


async def test_a_replica_that_is_killed_serves_nothing_flushed_when_it_is_back(three: Chaos) -> None:
    async with asked(three) as traffic:
        flushing = asyncio.create_task(three.flush(0, TAG))
        await three.replicas[2].kill()
        flushed = await flushing
        await three.replicas[2].start()
        await traffic.outlasts(flushed)
    judge(traffic, flushed)
    assert flushed.seconds < LEASE_SECONDS + SLACK_SECONDS


@pytest.mark.parametrize("first", [True, False], ids=["before", "during"])
@pytest.mark.parametrize("seconds", [0.5, 1.9, 2.1, 4.0])
async def test_a_replica_that_stands_still_serves_nothing_flushed_when_it_goes_on(three: Chaos, seconds: float, first: bool) -> None:
    stopped = three.replicas[2]
    async with asked(three) as traffic:
        if first:
            stopped.pause()
            flushing = asyncio.create_task(three.flush(0, TAG))
        else:
            flushing = asyncio.create_task(three.flush(0, TAG))
            await asyncio.sleep(0)
            stopped.pause()
        await traffic.goes_on(seconds)
        stopped.resume()
        flushed = await flushing
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


async def test_the_flusher_may_stand_still_too(three: Chaos) -> None:
    async with asked(three) as traffic:
        flushing = asyncio.create_task(three.flush(0, TAG))
        await traffic.goes_on(0.01)
        three.replicas[0].pause()
        await traffic.goes_on(LEASE_SECONDS + 0.5)
        three.replicas[0].resume()
        flushed = await flushing
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


async def test_restarted_replicas_serve_nothing_flushed(three: Chaos) -> None:
    async with asked(three) as traffic:
        flushed = await three.flush(0, TAG)
        for replica in three.replicas:
            await replica.stop()
            await replica.start()
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


@pytest.mark.parametrize("absent", [None, 0], ids=["all-come-back", "the-flusher-comes-late"])
async def test_an_older_snapshot_brings_nothing_flushed_back(three: Chaos, store: RedisServer, absent: int | None) -> None:
    """One replica is killed with the store, and starts while it knows nothing but the snapshot."""
    async with asked(three) as traffic:
        snapshot = store.save()
        flushed = await three.flush(0, TAG)
        if absent is not None:
            await three.proxies[absent].cut()
        await three.replicas[2].kill()
        await asyncio.to_thread(store.kill)
        await asyncio.to_thread(store.restart, snapshot)
        await three.replicas[2].start()
        await traffic.goes_on(0.0 if absent is None else 1.5 * LEASE_SECONDS)
        await three.proxies[0].heal()
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


async def test_a_flush_right_after_an_older_snapshot_does_not_hide_what_was_lost(three: Chaos, store: RedisServer) -> None:
    async with asked(three) as traffic:
        snapshot = store.save()
        first = await three.flush(0, TAG)
        await three.proxies[0].cut()
        await three.replicas[2].kill()
        await asyncio.to_thread(store.kill)
        await asyncio.to_thread(store.restart, snapshot)
        second = await insisted(three, 1, {"tag": TAGS[2]})
        await three.replicas[2].start()
        await three.proxies[0].heal()
        await traffic.outlasts(second)
    judge(traffic, first)
    assert traffic.forbidden(second) == []


def evicting(store: RedisServer, what: str) -> None:
    with store.client() as client:
        gone = {"epochs": client.keys("inference-cache:*:epoch:*"), "raises": [KEYS.raises()], "replicas": [KEYS.replicas()]}
        if what == "everything":
            client.flushall()
        else:
            assert client.delete(*gone[what])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["epochs", "raises", "replicas", "everything"])
async def test_what_the_store_evicts_brings_nothing_flushed_back(three: Chaos, store: RedisServer, what: str, when: str) -> None:
    async with asked(three) as traffic:
        await (await_flush := three.flush(0, {"tag": TAGS[0]}))
        await traffic.goes_on(WINDOW_SECONDS)
        if when == "before":
            await asyncio.to_thread(evicting, store, what)
        flushed = await three.flush(0, TAG)
        if when == "after":
            await asyncio.to_thread(evicting, store, what)
        await traffic.outlasts(flushed)
    judge(traffic, flushed)
    del await_flush


@contextmanager
def full(store: RedisServer, policy: str) -> Iterator[None]:
    """Less memory than everything needs, and somebody who writes all the time."""
    with store.client() as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 2_000_000)
        client.config_set("maxmemory-policy", policy)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")


async def writing(store: RedisServer) -> None:
    with store.client() as client:
        for number in itertools.count():
            client.set(f"other:{number}", b"-" * 5000)
            await asyncio.sleep(0.003)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
async def test_a_store_that_evicts_anything_at_any_time_brings_nothing_flushed_back(three: Chaos, store: RedisServer, policy: str) -> None:
    async with asked(three) as traffic:
        with full(store, policy):
            writer = asyncio.create_task(writing(store))
            await traffic.goes_on(WINDOW_SECONDS)
            first = await insisted(three, 0, TAG)
            await traffic.goes_on(1.0)
            second = await insisted(three, 1, ALL)
            await traffic.goes_on(2.0)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        await traffic.outlasts(second)
    assert traffic.forbidden(first) == []
    judge(traffic, second)


async def insisted(three: Chaos, replica: int, target: Mapping[str, object]) -> Flushed:
    """As one does who is told that it could not be acknowledged."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await three.flush(replica, target)
        except NotFlushedError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_an_answer_that_was_begun_before_a_flush_is_neither_found_nor_joined_after_it(three: Chaos, stream: bool) -> None:
    question = Question(f"What is the boiling point of tungsten{' streamed' * stream}?", TAGS[1], None, stream)
    urls = [replica.url for replica in three.replicas]
    begun = three.standin.inferences
    three.standin.pace = Pace(first_token=2.5)
    late = asyncio.create_task(answer(three.session, urls[2], question))
    await until(lambda: three.standin.inferences > begun)
    three.standin.pace = Pace()
    flushed = await three.flush(0, TAG)
    at_once = [await answer(three.session, url, question) for url in urls]
    assert not late.done()
    kind, generation = await late
    assert (kind, generation) == ("miss", flushed.generation - 1)
    afterwards = [await answer(three.session, url, question) for url in urls]
    assert [generation for _, generation in at_once + afterwards] == [flushed.generation] * 6
    assert [kind for kind, _ in afterwards] == ["exact"] * 3


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
    async with asked(watched) as traffic:
        flushed = await watched.flush(0, TAG)
        await asyncio.to_thread(sentinels.failover)
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


@pytest.mark.parametrize("replica", [0, 1])
async def test_a_flush_while_the_former_master_lives_on_is_one_everywhere(watched: Chaos, sentinels: SentinelServers, replica: int) -> None:
    async with asked(watched) as traffic:
        failing_over = asyncio.create_task(asyncio.to_thread(sentinels.failover))
        first = await insisted(watched, replica, {"tag": TAGS[0]})
        await failing_over
        second = await insisted(watched, replica, TAG)
        await watched.replicas[2].kill()
        await watched.replicas[2].start()
        await traffic.outlasts(second)
    assert traffic.forbidden(first) == []
    judge(traffic, second)


async def test_a_flush_that_a_failover_loses_is_made_good(watched: Chaos, sentinels: SentinelServers) -> None:
    """The server that is promoted has heard nothing of the flush."""
    (behind,) = sentinels.replicas()
    async with asked(watched) as traffic:
        await asyncio.to_thread(behind.pause)
        flushed = await watched.flush(0, TAG)
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
    async with asked(watched) as traffic:
        await asyncio.to_thread(old.pause)
        await asyncio.to_thread(sentinels.promoted, old.port)
        flushed = await insisted(watched, 0, TAG)
        old.resume()
        await traffic.outlasts(flushed)
    judge(traffic, flushed)
