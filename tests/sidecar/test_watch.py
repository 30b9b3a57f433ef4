"""The watch over the shared store's memory: what it finds, what it logs, what it counts."""

import logging
from collections.abc import AsyncIterator, Callable

import pytest
from tests.services.redis_servers import ClusterServers

from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.memory_report import OLDEST_VERSION, Finding, MemoryReport, findings, merged, read_report
from inference_cache_sidecar.shared.servers import Servers
from inference_cache_sidecar.shared.watch import EVICTION_LOOKS, StoreWatch
from inference_cache_toolkit.redis_server import RedisServer

pytestmark = pytest.mark.slow

MIB = 2**20
Watching = Callable[[str], StoreWatch]


@pytest.fixture
async def watching() -> AsyncIterator[Watching]:
    """`watching(url)`: a watch that looks when it is told to."""
    opened: list[Servers] = []

    def begin(url: str) -> StoreWatch:
        opened.append(Servers(parse_redis_url(url)))
        return StoreWatch(opened[-1], Keyspace("test"), 2.0)

    yield begin
    for servers in opened:
        await servers.close()


@pytest.mark.parametrize(
    ("report", "found"),
    [
        pytest.param(MemoryReport(1 * MIB, 100 * MIB, "volatile-lru"), [], id="all-is-well"),
        pytest.param(MemoryReport(1 * MIB), [("Unlimited", "info")], id="no-limit"),
        pytest.param(MemoryReport(1 * MIB, 0, "allkeys-lru"), [("Unlimited", "info")], id="a-policy-without-limit-does-nothing"),
        pytest.param(MemoryReport(64 * MIB, 100 * MIB, "volatile-lru", 1.51), [("Fragmented", "warning")], id="fragmented"),
        pytest.param(MemoryReport(64 * MIB, 100 * MIB, "volatile-lru", 1.5), [], id="fragmented-as-much-as-may-be"),
        pytest.param(MemoryReport(63 * MIB, 100 * MIB, "volatile-lru", 14.0), [], id="a-small-server-always-looks-fragmented"),
        pytest.param(MemoryReport(91 * MIB, 100 * MIB, "volatile-ttl"), [("NearlyFull", "info")], id="nearly-full-and-evicting"),
        pytest.param(MemoryReport(90 * MIB, 100 * MIB, "volatile-ttl"), [], id="not-yet-nearly-full"),
        pytest.param(MemoryReport(1 * MIB, 100 * MIB, "noeviction"), [("NoEviction", "warning")], id="no-eviction"),
        pytest.param(
            MemoryReport(91 * MIB, 100 * MIB, "noeviction"), [("NearlyFull", "problem"), ("NoEviction", "warning")], id="writes-soon-fail"
        ),
        pytest.param(MemoryReport(1 * MIB, 100 * MIB, "allkeys-lfu"), [("EvictsAnything", "warning")], id="streams-may-be-evicted"),
        pytest.param(MemoryReport(1 * MIB, 100 * MIB, "volatile-lru", evicted=1), [("Evicting", "warning")], id="evicting"),
        pytest.param(MemoryReport(1, 100, "volatile-lru", version=(6, 0, 16)), [("Unsupported", "problem")], id="too-old"),
        pytest.param(MemoryReport(1, 100, "volatile-lru", version=(6, 2)), [], id="old-enough"),
        pytest.param(MemoryReport(1, 100, "volatile-lru", version=(10, 0, 1)), [], id="versions-are-numbers"),
        pytest.param(MemoryReport(1, 100, "volatile-lru", is_master=False), [("ReadOnly", "problem")], id="a-replica"),
    ],
)
def test_a_report_is_judged(report: MemoryReport, found: list[tuple[str, str]]) -> None:
    assert [(finding.name, finding.level) for finding in findings(report)] == found


def test_what_several_servers_have_is_one_finding_that_counts_them() -> None:
    full = MemoryReport(95, 100, "volatile-lru")
    (finding,) = merged([full, MemoryReport(5, 100, "volatile-lru"), full])
    assert finding.text.endswith("(2 of 3 servers)")
    assert merged([full]) == findings(full)


@pytest.mark.parametrize(
    ("info", "report"),
    [
        pytest.param({}, MemoryReport(0), id="says-nothing"),
        pytest.param({"used_memory": "much", "mem_fragmentation_ratio": "-nan", "redis_version": "?"}, MemoryReport(0), id="says-nonsense"),
        pytest.param(
            {"used_memory": 5, "maxmemory": 9, "maxmemory_policy": "volatile-lru", "mem_fragmentation_ratio": 2, "redis_version": "7.0.15"},
            MemoryReport(5, 9, "volatile-lru", 2.0, version=(7, 0, 15)),
            id="says-all",
        ),
        pytest.param({"role": "slave", "redis_version": 6.2}, MemoryReport(0, version=OLDEST_VERSION, is_master=False), id="a-replica"),
    ],
)
def test_a_server_that_says_less_is_read_all_the_same(info: dict[str, object], report: MemoryReport) -> None:
    assert read_report(info, 0) == report


async def test_evictions_of_a_real_server_are_found_counted_and_forgotten_after_a_minute(
    start_redis: Callable[..., RedisServer], watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis(config=("maxmemory 4mb", "maxmemory-policy allkeys-lru"))
    caplog.set_level(logging.INFO, "inference_cache_sidecar.shared.watch")
    watch = watching(server.url)
    await watch.look()
    assert names(watch) == ["EvictsAnything"]
    with server.client() as client:
        for number in range(1000):
            client.set(f"key-{number}", "x" * 10_000)
        evicted = client.info("stats")["evicted_keys"]
    for _ in range(EVICTION_LOOKS):
        await watch.look()
        assert set(names(watch)) == {"NearlyFull", "EvictsAnything", "Evicting"}
    assert watch.evicted == evicted > 0
    assert (watch.sight.policy, watch.sight.max_bytes) == ("allkeys-lru", 4 * MIB)
    assert watch.sight.used_bytes is not None
    assert 3 * MIB < watch.sight.used_bytes < 5 * MIB
    await watch.look()
    assert "Evicting" not in names(watch)
    assert [text.partition(":")[0] for text in caplog.messages] == ["shared store"] * 3 + ["shared store, no longer so"]
    assert "evicted before their time" in caplog.messages[-1]


async def test_a_store_that_goes_and_comes_back_is_told_of_once(
    start_redis: Callable[..., RedisServer], watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    caplog.set_level(logging.INFO, "inference_cache_sidecar.shared.watch")
    watch = watching(server.url)
    await watch.look()
    server.kill()
    await watch.look()
    await watch.look()
    assert (names(watch), watch.sight.up, watch.sight.used_bytes, watch.sight.policy) == (["Unreachable"], False, None, None)
    server.restart()
    await watch.look()
    assert (names(watch), watch.sight.up) == (["Unlimited"], True)
    assert ["does not answer" in text for text in caplog.messages] == [False, True, True], "no limit, gone, and back"
    assert caplog.messages[-1].startswith("shared store, no longer so")


async def test_a_paused_store_does_not_hold_the_watch_up(redis: RedisServer, watching: Watching) -> None:
    watch = watching(redis.url)
    redis.pause()
    await watch.look()
    assert names(watch) == ["Unreachable"]
    redis.resume()


async def test_every_master_of_a_cluster_is_looked_at(cluster: ClusterServers, watching: Watching) -> None:
    watch = watching(cluster.url)
    await watch.look()
    assert len(watch.sight.reports) == 3
    assert watch.sight.used_bytes == sum(report.used_bytes for report in watch.sight.reports) > 0
    assert watch.sight.findings == [
        Finding("Unlimited", "info", "maxmemory is not set: only the system's memory ends the store's growth (3 of 3 servers)")
    ]


def names(watch: StoreWatch) -> list[str]:
    return [finding.name for finding in watch.sight.findings]
