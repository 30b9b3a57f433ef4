"""Flush orders of the hot configuration: executed once among those who share a store, by each where nobody does, and reported by all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.services.test_sidecar_command import processes, started
from tests.sidecar.conftest import PATIENCE, Gate, until, until_asked
from tests.sidecar.hot_sidecars import TERMS, Starter, Volume, starting

from inference_cache_contract.configuration import FlushOrder
from inference_cache_contract.epochs import version_epoch
from inference_cache_contract.keyspace import Keyspace
from inference_cache_contract.sidecar_status import FlushReport, read_sidecar_status
from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.configuration import orders as orders_module
from inference_cache_sidecar.configuration.order_records import OrderRecords
from inference_cache_sidecar.configuration.orders import FlushOrders, OrderParts, OrderTerms
from inference_cache_sidecar.flush import FlushIncomplete, FlushRequest
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.calls import Calls
from inference_cache_sidecar.shared.servers import Servers
from inference_cache_toolkit.processes import Child
from inference_cache_toolkit.redis_server import RedisServer
from inference_cache_toolkit.standin.state import Standin

__all__ = ["processes"]
OFF: dict[str, Any] = {"semantic": {"mode": "Off"}}
KEYS = Keyspace("test")
ALL = FlushOrder("one", "all")
OLD = FlushOrder("old", "version", "v0")
BRIEF = replace(TERMS, lease=3.0)


@pytest.fixture
async def start(standin_url: str, tmp_path: Path) -> AsyncIterator[Starter]:
    async with starting(standin_url, tmp_path) as begin:
        yield begin


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is late on a busy machine would be made again, and so would a raise."""
    call = Calls.__call__

    async def patient(self: Calls, ask: Any, seconds: float | None = None, *, trial: bool = False) -> Any:
        return await call(self, ask, max(seconds or 0.0, PATIENCE), trial=trial)

    monkeypatch.setattr(Calls, "__call__", patient)


def reports(told: dict[str, Any]) -> dict[str, FlushReport]:
    return {report.id: report for report in read_sidecar_status(told).flushes}


def all_done(*ids: str) -> Callable[[dict[str, Any]], bool]:
    return lambda told: all(each in reports(told) and reports(told)[each].state == "done" for each in ids)


def raises(redis: RedisServer) -> int:
    """How many epochs were raised so far."""
    with redis.client() as client:
        return int(client.xlen(KEYS.raises()))  # type: ignore[arg-type]  # the synchronous client


async def test_without_a_shared_store_each_executes_an_order_once(start: Starter) -> None:
    hot = await start(spec=OFF)
    await hot.chat("one")
    await hot.configured(OFF, [ALL])
    told = reports(await hot.until(all_done("one")))
    assert (told["one"].acknowledged, told["one"].keys) == (True, 1)
    assert told["one"].epoch is not None
    assert (await hot.chat("one")).kind == "miss"
    await hot.configured(OFF | {"exact": {"ttl": "1h"}}, [ALL])
    assert (await hot.chat("one")).kind == "exact", "executed again"
    await hot.configured(OFF, [ALL, FlushOrder("two", "all")])
    await hot.until(all_done("one", "two"))
    assert (await hot.chat("one")).kind == "miss"


async def test_a_flush_of_another_version_leaves_this_ones_entries(start: Starter) -> None:
    hot = await start(spec=OFF, variables={"INFERENCE_CACHE_MODEL_VERSION": "v1"})
    await hot.chat("one")
    await hot.configured(OFF, [OLD])
    assert reports(await hot.until(all_done("old")))["old"].keys == 0
    assert (await hot.chat("one")).kind == "exact"


async def test_what_is_in_flight_when_an_order_comes_is_not_served_later(start: Starter, standin: Standin, gate: Gate) -> None:
    hot = await start(spec=OFF)
    asking = asyncio.create_task(hot.chat("one", stream=True))
    async with asyncio.timeout(PATIENCE):
        while not hot.running.parts.flights:
            await asyncio.sleep(0.005)
    await hot.configured(OFF, [ALL])
    await hot.until(all_done("one"))
    assert not asking.done()
    late = asyncio.create_task(hot.chat("one"))
    await until_asked(standin, 2)
    gate.open()
    assert (await late).kind == "miss"
    assert (await asking).body.endswith(b"data: [DONE]\n\n")


async def test_an_order_that_is_gone_is_forgotten_after_a_while(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    hot = await start(spec=OFF)
    await hot.configured(OFF, [ALL])
    await hot.until(all_done("one"))
    assert set(reports(await hot.configured(OFF))) == {"one"}
    monkeypatch.setattr(orders_module, "FORGOTTEN_SECONDS", 0.0)
    await hot.until(lambda told: not told["flushes"])


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
async def test_of_three_replicas_one_executes_an_order_and_all_report_it(start: Starter, redis: RedisServer, tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    three = [await start(volume, spec=OFF, redis_url=redis.url) for _ in range(3)]
    for number, hot in enumerate(three):
        await hot.chat(f"question {number}")
    before = raises(redis)
    volume.configure(OFF, [ALL])
    told = [reports(await hot.until(all_done("one")))["one"] for hot in three]
    assert told[0] == told[1] == told[2]
    assert (told[0].acknowledged, told[0].keys) == (True, 3)
    assert raises(redis) == before + 1
    for number, hot in enumerate(three):
        assert (await hot.chat(f"question {number}")).kind == "miss"
    # A process that starts later finds it done.
    await three[0].chat("kept")
    fourth = await start(volume, spec=OFF, redis_url=redis.url)
    assert reports(await fourth.until(all_done("one")))["one"] == told[0]
    assert (await fourth.chat("kept")).kind == "exact"
    assert raises(redis) == before + 1
    with redis.client() as client:
        assert 6 * 24 * 3600 < int(client.ttl(KEYS.order("one"))) <= 7 * 24 * 3600  # type: ignore[arg-type]  # the synchronous client


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
async def test_many_orders_at_once_are_each_executed_once(start: Starter, redis: RedisServer, tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    three = [await start(volume, spec=OFF, redis_url=redis.url) for _ in range(3)]
    before = raises(redis)
    many = [FlushOrder(f"order {number}", "version", f"v{number}") for number in range(10)]
    volume.configure(OFF, many)
    for hot in three:
        await hot.until(all_done(*(order.id for order in many)))
    assert raises(redis) == before + 10


@pytest.mark.slow
@pytest.mark.services
async def test_an_order_whose_executor_is_killed_midway_is_finished_by_another_and_flushed_once(
    start: Starter, redis: RedisServer, tmp_path: Path, standin_url: str, processes: Callable[..., Child]
) -> None:
    volume = Volume(tmp_path)
    volume.configure(OFF, [OLD])
    before = raises(redis)
    beside = ("--configuration", str(volume.path), "--cache-name", "test")
    with redis.client() as client:
        for first in range(0, 120_000, 10_000):
            client.mset({KEYS.entry("v0", bytes(32), number.to_bytes(32, "big")): b"x" for number in range(first, first + 10_000)})
        child, _, _ = await asyncio.to_thread(started, processes, standin_url, *beside, INFERENCE_CACHE_REDIS_URL=redis.url)
        async with asyncio.timeout(60):
            while client.hget(KEYS.order("old"), "acknowledged") != "1":
                await asyncio.sleep(0.001)
        child.process.kill()
        assert client.hget(KEYS.order("old"), "state") == "running", "it was over before it could be killed"
        # Half a minute would have to pass until the purge's own lease has run out.
        client.delete(KEYS.purge_lease(version_epoch("v0")))
        two = [await start(volume, spec=OFF, redis_url=redis.url) for _ in range(2)]
        told = [reports(await hot.until(all_done("old"), 120))["old"] for hot in two]
        left = list(client.scan_iter(KEYS.entries_of("v0"), count=10_000))
    assert told[0] == told[1]
    assert told[0].acknowledged
    assert raises(redis) == before + 1, "the epoch was raised by the one that died"
    assert left == []


class Flushing:
    """A flusher whose halves take as long as the test wants."""

    def __init__(self) -> None:
        self.raised = self.purged = 0
        self.go_on = asyncio.Event()
        self.failing = 0

    async def raise_everywhere(self, _request: FlushRequest) -> tuple[int, float]:
        self.raised += 1
        if self.failing:
            self.failing -= 1
            raise FlushIncomplete("in force here alone")
        return 7, 0.01

    async def purge(self, _request: FlushRequest) -> int:
        await self.go_on.wait()
        self.purged += 1
        return 5


class Replica:
    def __init__(self, url: str, flushing: Flushing, terms: OrderTerms) -> None:
        address = parse_redis_url(url)
        self.servers = Servers(address)
        self.calls = Calls(self.servers, Breaker(BreakerSettings(1_000_000, 0.01)), 1.0)
        records = OrderRecords(self.calls, KEYS, terms.lease)
        self.orders = FlushOrders(OrderParts(flushing, records, lambda _: None, lambda _: None), terms)  # type: ignore[arg-type]

    def die(self) -> None:
        """Nothing that it does reaches the store any more."""
        self.calls.failing = lambda: True

    async def close(self) -> None:
        await self.orders.close()
        await self.servers.close()

    @property
    def report(self) -> FlushReport:
        (report,) = self.orders.reports
        return report


@pytest.fixture
async def flushing() -> Flushing:
    return Flushing()


@pytest.fixture
async def replicas(redis: RedisServer, flushing: Flushing) -> AsyncIterator[Callable[[], Replica]]:
    made: list[Replica] = []

    def make() -> Replica:
        made.append(Replica(redis.url, flushing, BRIEF))
        return made[-1]

    yield make
    for replica in made:
        await replica.close()


@pytest.mark.slow
async def test_a_lease_is_renewed_for_as_long_as_it_takes(replicas: Callable[[], Replica], flushing: Flushing) -> None:
    one, other = replicas(), replicas()
    one.orders.heed([ALL])
    other.orders.heed([ALL])
    await until(lambda: one.report.acknowledged and other.report.acknowledged)
    await asyncio.sleep(2.5 * BRIEF.lease)
    assert (flushing.raised, flushing.purged, one.report.state, other.report.state) == (1, 0, "running", "running")
    flushing.go_on.set()
    await until(lambda: one.report.state == other.report.state == "done")
    assert (flushing.raised, flushing.purged) == (1, 1)


@pytest.mark.slow
async def test_whoever_takes_over_from_the_dead_does_the_half_that_is_missing(replicas: Callable[[], Replica], flushing: Flushing) -> None:
    one = replicas()
    one.orders.heed([ALL])
    await until(lambda: one.report.acknowledged)
    other = replicas()
    other.orders.heed([ALL])
    await until(lambda: other.report.acknowledged)
    one.die()
    await asyncio.sleep(1.5 * BRIEF.lease)
    flushing.go_on.set()
    await until(lambda: other.report.state == "done")
    assert flushing.raised == 1
    assert (other.report.epoch, other.report.keys) == (7, 5)


@pytest.mark.slow
async def test_one_that_is_closed_gives_its_order_back_at_once(redis: RedisServer, flushing: Flushing) -> None:
    slow = OrderTerms(lease=60.0, look=0.05)
    one, other = Replica(redis.url, flushing, slow), Replica(redis.url, flushing, slow)
    one.orders.heed([ALL])
    await until(lambda: one.report.acknowledged)
    other.orders.heed([ALL])
    await one.close()
    flushing.go_on.set()
    await until(lambda: other.report.state == "done")
    assert flushing.raised == 1
    await other.close()


@pytest.mark.slow
async def test_an_order_that_failed_is_tried_again_with_patience_and_says_so(replicas: Callable[[], Replica], flushing: Flushing) -> None:
    flushing.failing = 3
    flushing.go_on.set()
    one, other = replicas(), replicas()
    one.orders.heed([ALL])
    other.orders.heed([ALL])
    await until(lambda: one.report.state == "failed" or other.report.state == "failed")
    await until(lambda: one.report.state == other.report.state == "done")
    assert (flushing.raised, flushing.purged) == (4, 1)


@pytest.mark.slow
async def test_a_store_that_is_away_for_a_while_delays_an_order_alone(
    replicas: Callable[[], Replica], flushing: Flushing, redis: RedisServer
) -> None:
    redis.pause()
    one = replicas()
    one.orders.heed([ALL])
    await until(lambda: one.report.state == "failed")
    assert flushing.raised == 0
    redis.resume()
    flushing.go_on.set()
    await until(lambda: one.report.state == "done")
    assert flushing.raised == 1


async def test_a_retry_waits_longer_each_time_up_to_a_limit() -> None:
    assert [OrderTerms().retry(attempts) for attempts in (1, 2, 3, 6, 50)] == [1.0, 2.0, 4.0, 30.0, 30.0]


async def test_an_order_that_fails_without_a_store_is_tried_again() -> None:
    flushing = Flushing()
    flushing.failing = 2
    flushing.go_on.set()
    orders = FlushOrders(OrderParts(flushing, None, lambda _: None, lambda _: None), TERMS)  # type: ignore[arg-type]
    orders.heed([OLD])
    await until(lambda: orders.reports[0].state == "done")
    assert flushing.raised == 3
    await orders.close()
