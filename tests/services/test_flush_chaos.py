"""After the acknowledgement of a flush no replica gives what was flushed, whatever is cut off, stopped, killed, rolled back or evicted."""

import asyncio
import collections
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio
from tests.services.chaos import LEASE_SECONDS, VERSION, Chaos, chaos, until
from tests.services.chaos_traffic import CATEGORY, CHAT, MOSTLY, TAGS, WINDOW_SECONDS, Flushed, Question, Traffic, answer
from tests.services.redis_sentinel import SentinelServers, sentinel_servers

from inference_cache_contract.keyspace import Keyspace
from inference_cache_toolkit.redis_server import RedisServer, redis_server
from inference_cache_toolkit.standin.state import Pace

pytestmark = [pytest.mark.services, pytest.mark.asyncio(loop_scope="module")]
ALL = {"all": True}
KEYS = Keyspace("inference-cache")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    with redis_server(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory, store) -> AsyncIterator[Chaos]:
    async with chaos(tmp_path_factory.mktemp("chaos"), [store.port] * 3) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def replicas(running: Chaos) -> Chaos:
    await running.whole()
    return running


def judge(traffic: Traffic, flushed: Flushed) -> None:
    print(f"ack {flushed.seconds:.3f} latest {traffic.latest(flushed):.3f}", len(traffic.heard), dict(collections.Counter(h.kind for h in traffic.heard)))
    assert traffic.forbidden(flushed) == []
    assert traffic.hits(flushed.sent - WINDOW_SECONDS, flushed.sent) >= MOSTLY


@pytest.mark.parametrize("target", [ALL, {"version": VERSION}, {"tag": TAGS[0]}, {"category": CATEGORY}], ids=str)
async def test_quiet(replicas: Chaos, target: Mapping[str, object]) -> None:
    async with replicas.traffic().running() as traffic:
        await traffic.warm()
        flushed = await replicas.flush(0, target)
        await traffic.lasts(1.0)
        await traffic.warm()
    judge(traffic, flushed)
    assert flushed.seconds < 1


@pytest.mark.parametrize("fault", ["cut", "hang"])
@pytest.mark.parametrize("target", [ALL, {"tag": TAGS[0]}], ids=str)
async def test_cut_off(replicas: Chaos, fault: str, target) -> None:
    proxy = replicas.proxies[2]
    async with replicas.traffic().running() as traffic:
        await traffic.warm()
        if fault == "cut":
            await proxy.cut()
        else:
            proxy.hang()
        flushed = await replicas.flush(0, target)
        await traffic.lasts(1.5)
        await proxy.heal()
        await traffic.warm()
    judge(traffic, flushed)


async def test_killed(replicas: Chaos) -> None:
    async with replicas.traffic().running() as traffic:
        await traffic.warm()
        flushing = asyncio.create_task(replicas.flush(0, ALL))
        await replicas.replicas[2].kill()
        flushed = await flushing
        await replicas.replicas[2].start()
        await traffic.warm()
    judge(traffic, flushed)


@pytest.mark.parametrize("delay", [0.5, 1.9, 2.1, 4.0])
async def test_stopped(replicas: Chaos, delay: float) -> None:
    async with replicas.traffic().running() as traffic:
        await traffic.warm()
        replicas.replicas[2].pause()
        flushing = asyncio.create_task(replicas.flush(0, {"tag": TAGS[1]}))
        await traffic.lasts(delay)
        replicas.replicas[2].resume()
        flushed = await flushing
        await traffic.lasts(1.2)
        await traffic.warm()
    judge(traffic, flushed)


async def test_restarts(replicas: Chaos) -> None:
    async with replicas.traffic().running() as traffic:
        await traffic.warm()
        flushed = await replicas.flush(0, {"tag": TAGS[1]})
        for replica in replicas.replicas:
            await replica.stop()
            await replica.start()
        await traffic.warm()
    judge(traffic, flushed)


@pytest.mark.parametrize("absent", [0.0, 3.0])
@pytest.mark.parametrize("again", [False, True])
async def test_rolled_back(replicas: Chaos, store, absent: float, again) -> None:
    async with replicas.traffic().running() as traffic:
        await traffic.warm()
        snapshot = store.save()
        flushed = await replicas.flush(0, {"tag": TAGS[1]})
        await traffic.lasts(0.3)
        if absent:
            await replicas.proxies[0].cut()
        await asyncio.to_thread(store.kill)
        await replicas.replicas[2].kill()
        starting = asyncio.create_task(replicas.replicas[2].start())
        await asyncio.to_thread(store.restart, snapshot)
        if again:
            with store.client() as c: pass
            try:
                await replicas.flush(1, {"tag": TAGS[2]})
            except Exception as e:
                print(e)
        await starting
        await traffic.lasts(absent)
        await replicas.proxies[0].heal()
        await traffic.warm()
    judge(traffic, flushed)


@pytest.mark.parametrize("gone", ["epochs", "raises", "replicas", "all"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_evicted(replicas: Chaos, store, gone, when) -> None:
    def evict() -> None:
        with store.client() as client:
            if gone == "all":
                client.flushall()
            else:
                keys = {"epochs": client.keys("inference-cache:*:epoch:*"), "raises": [KEYS.raises()], "replicas": [KEYS.replicas()]}[gone]
                print(client.delete(*keys))
    async with replicas.traffic().running() as traffic:
        await traffic.warm()
        if when == "before":
            evict()
        flushed = await replicas.flush(0, {"tag": TAGS[1]})
        if when == "after":
            evict()
        await traffic.lasts(1.2)
        await traffic.warm()
    judge(traffic, flushed)
