"""After the acknowledgement of a flush no replica gives what was flushed, whatever is cut off, stopped, killed, rolled back or evicted.

Three sidecars in processes of their own, asked all the time; most answers are hits before the flush and after it.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from statistics import median

import pytest
import pytest_asyncio
from tests.services.chaos import LEASE_SECONDS, REPLICAS, VERSION, Chaos, chaos, until
from tests.services.chaos_traffic import CATEGORY, TAGS, WINDOW_SECONDS, Question, answer, judge

from inference_cache_contract.keyspace import Keyspace
from inference_cache_toolkit.redis_server import RedisServer, redis_server
from inference_cache_toolkit.standin.state import Pace

pytestmark = [pytest.mark.services, pytest.mark.asyncio(loop_scope="module")]
ALL = {"all": True}
TAG = {"tag": TAGS[1]}
KEYS = Keyspace("inference-cache")
SLACK_SECONDS = 1.5
"""What a busy machine adds to the acknowledgement of a flush, but for moments at which it stands still."""
LATE_SECONDS = LEASE_SECONDS + 5 * SLACK_SECONDS
HELD_SECONDS = 12345.0


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
    async with three.asked() as traffic:
        before = three.generations.now
        flushed = await three.flushed(0, target)
        await traffic.outlasts(flushed)
    judge(traffic, flushed)
    quiet = [await three.flush_until_acknowledged(0, target) for _ in range(5)]
    # Nobody waits for a lease to run out, and none is refused: three of five meet no moment at which the machine stands still.
    assert median(each.seconds for each, _ in quiet) < SLACK_SECONDS
    assert median(refused for _, refused in quiet) == 0
    kept = {(each.question, each.replica) for each in traffic.heard if each.is_hit and each.ended < flushed.sent}
    rest = [each for each in traffic.heard if each.started > flushed.acknowledged and not each.question.is_flushed_by(target)]
    there = [each for each in rest if (each.question, each.replica) in kept]
    # A replica that stood still for as long as its lease asks upstream, but finds nothing gone, once it has confirmed its epochs.
    assert not [each for each in there if each.kind == "miss"]
    assert all(each.generation is not None and each.generation <= before for each in there if each.is_hit)


@pytest.mark.parametrize("fault", ["cut", "hang"])
@pytest.mark.parametrize("target", [pytest.param(ALL, id="all"), pytest.param(TAG, id="tag")])
async def test_a_replica_that_is_cut_off_serves_nothing_flushed(three: Chaos, fault: str, target: Mapping[str, object]) -> None:
    proxy = three.proxies[2]
    async with three.asked() as traffic:
        if fault == "cut":
            await proxy.cut()
        else:
            proxy.hang()
        flushed = await three.flushed(0, target)
        await traffic.goes_on(SLACK_SECONDS)
        await proxy.heal()
        await traffic.outlasts(flushed)
    judge(traffic, flushed)
    assert flushed.seconds < LATE_SECONDS


async def test_a_replica_that_is_killed_serves_nothing_flushed_when_it_is_back(three: Chaos) -> None:
    async with three.asked() as traffic:
        flushing = asyncio.create_task(three.flushed(0, TAG))
        await three.replicas[2].kill()
        flushed = await flushing
        await three.replicas[2].start()
        await traffic.outlasts(flushed)
    judge(traffic, flushed)
    assert flushed.seconds < LATE_SECONDS


@pytest.mark.parametrize("before", [True, False], ids=["before-the-flush", "during-the-flush"])
@pytest.mark.parametrize("seconds", [(0.5, 2.1), (1.9, 4.0)], ids=str)
async def test_replicas_that_stood_still_serve_nothing_flushed_when_they_go_on(
    three: Chaos, seconds: tuple[float, float], before: bool
) -> None:
    async with three.asked() as traffic:
        flushing = None if before else asyncio.create_task(three.flushed(0, TAG))
        await traffic.goes_on(0.005)
        for replica in three.replicas[1:]:
            replica.pause()
        flushing = flushing or asyncio.create_task(three.flushed(0, TAG))
        await traffic.goes_on(seconds[0])
        three.replicas[1].resume()
        await traffic.goes_on(seconds[1] - seconds[0])
        three.replicas[2].resume()
        flushed = await flushing
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


async def test_the_flusher_may_stand_still_too(three: Chaos) -> None:
    async with three.asked() as traffic:
        flushing = asyncio.create_task(three.flushed(0, TAG))
        await traffic.goes_on(0.01)
        three.replicas[0].pause()
        await traffic.goes_on(LEASE_SECONDS + 0.5)
        three.replicas[0].resume()
        flushed = await flushing
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


async def test_restarted_replicas_serve_nothing_flushed(three: Chaos) -> None:
    async with three.asked() as traffic:
        flushed = await three.flushed(0, TAG)
        for replica in three.replicas:
            await replica.stop()
            await replica.start()
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


@pytest.mark.parametrize("absent", [None, 0], ids=["all-come-back", "the-flusher-comes-late"])
async def test_an_older_snapshot_brings_nothing_flushed_back(three: Chaos, store: RedisServer, absent: int | None) -> None:
    """One replica is killed with the store, and starts while it knows nothing but the snapshot."""
    async with three.asked() as traffic:
        snapshot = store.save()
        flushed = await three.flushed(0, TAG)
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
    async with three.asked() as traffic:
        snapshot = store.save()
        first = await three.flushed(0, TAG)
        await three.proxies[0].cut()
        await three.replicas[2].kill()
        await asyncio.to_thread(store.kill)
        await asyncio.to_thread(store.restart, snapshot)
        second, _ = await three.flush_until_acknowledged(1, {"tag": TAGS[2]})
        await three.replicas[2].start()
        await three.proxies[0].heal()
        await traffic.outlasts(second)
    judge(traffic, first, second)


def evicting(store: RedisServer, what: str) -> None:
    with store.client() as client:
        gone = {"epochs": client.keys("inference-cache:*:epoch:*"), "raises": [KEYS.raises()], "replicas": [KEYS.replicas()]}
        if what == "everything":
            client.flushall()
        else:
            client.delete(*gone[what])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["epochs", "raises", "replicas", "everything"])
async def test_what_the_store_evicts_brings_nothing_flushed_back(three: Chaos, store: RedisServer, what: str, when: str) -> None:
    async with three.asked() as traffic:
        if when == "before":
            await asyncio.to_thread(evicting, store, what)
        flushed = await three.flushed(0, TAG)
        if when == "after":
            await asyncio.to_thread(evicting, store, what)
        await traffic.outlasts(flushed)
    judge(traffic, flushed)


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
    async with three.asked() as traffic:
        with full(store, policy):
            writer = asyncio.create_task(writing(store))
            await traffic.goes_on(WINDOW_SECONDS)
            first, _ = await three.flush_until_acknowledged(0, TAG)
            await traffic.goes_on(WINDOW_SECONDS)
            second, _ = await three.flush_until_acknowledged(1, ALL)
            await traffic.goes_on(WINDOW_SECONDS)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        await traffic.outlasts(second)
    judge(traffic, first, second)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_an_answer_that_was_begun_before_a_flush_is_neither_found_nor_joined_after_it(
    three: Chaos, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = Question(f"What is the boiling point of tungsten{' streamed' * stream}?", TAGS[1], None, stream)
    urls, go_on, sleep = [replica.url for replica in three.replicas], asyncio.Event(), asyncio.sleep
    # The answer is generated until it is let go, however long the others take.
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, *more: go_on.wait() if seconds == HELD_SECONDS else sleep(seconds, *more))
    begun = three.standin.inferences
    three.standin.pace = Pace(first_token=HELD_SECONDS)
    late = asyncio.create_task(answer(three.session, urls[2], question))
    await until(lambda: three.standin.inferences > begun)
    three.standin.pace, before = Pace(), three.generations.now
    flushed = await three.flushed(0, TAG)
    at_once = [await answer(three.session, url, question) for url in urls]
    assert not late.done()
    go_on.set()
    kind, generation = await late
    assert (kind, generation) == ("miss", before)
    afterwards = [await answer(three.session, url, question) for url in urls]
    assert [generation for _, generation in at_once + afterwards] == [flushed.generation] * 6
    assert [kind for kind, _ in afterwards] == ["exact"] * 3
