"""The admin port of sidecars that share a store: flushes that all replicas heed, how far they are, and how the store does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
import pytest
from tests.sidecar.conftest import ADMIN_TOKEN, PATIENCE, Client

from inference_cache_contract.keyspace import Keyspace, name_digest
from inference_cache_toolkit.flush.command import main
from inference_cache_toolkit.redis_server import RedisServer
from inference_cache_toolkit.standin.state import Standin

pytestmark = pytest.mark.slow

Start = Callable[..., Awaitable[Client]]
TRUSTING: dict[str, Any] = {
    "trustedHeaders": {"from": ["127.0.0.0/8"]},
    "semantic": {"mode": "Off", "categories": [{"name": "pricing"}]},
    "model": {"version": "v1"},
}
MARKS = {"x-inference-cache-tags": "user:7", "x-inference-cache-category": "pricing"}


async def status(client: Client) -> dict[str, Any]:
    async with client.session.get(client.admin_url + "/status") as response:
        told: dict[str, Any] = orjson.loads(await response.read())
        return told


async def until(client: Client, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first status that is so."""
    async with asyncio.timeout(PATIENCE):
        while not holds(told := await status(client)):
            await asyncio.sleep(0.01)
    return told


def held_halfway(client: Client, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Its purges go on after the first batch when this is set."""
    shared, go_on = client.running.shared, asyncio.Event()
    assert shared is not None
    delete_many, purger = shared.hot.delete_many, shared.purger

    async def held(keys: Sequence[bytes]) -> int:
        if purger.latest is not None and purger.latest.deleted:
            await go_on.wait()
        return await delete_many(keys)

    monkeypatch.setattr(shared.hot, "delete_many", held)
    return go_on


@pytest.fixture
async def both(start_sidecar: Start, redis: RedisServer) -> list[Client]:
    return [await start_sidecar(TRUSTING, redis_url=redis.url) for _ in range(2)]


@pytest.mark.parametrize(
    ("target", "model"),
    [
        pytest.param({"all": True}, "tiny", id="all"),
        pytest.param({"version": "v1"}, "tiny", id="version"),
        pytest.param({"tag": "user:7"}, "tiny", id="tag"),
        pytest.param({"category": "pricing"}, "tiny", id="category"),
        pytest.param({"adapter": "lora"}, "lora", id="adapter"),
    ],
)
async def test_an_acknowledged_flush_is_heeded_by_all(
    both: list[Client], standin: Standin, target: dict[str, Any], model: str, caplog: pytest.LogCaptureFixture
) -> None:
    standin.load_adapter("lora", "/a")
    first, second = both
    for client in both:
        await client.chat("one", MARKS, model=model)
    foreseen = await first.administer("/flush", target | {"dryRun": True})
    assert (foreseen.status, foreseen.json()["wouldFlush"]) == (200, 1)
    assert (await second.chat("one", MARKS, model=model)).kind == "exact"
    caplog.set_level(logging.INFO)
    flushed = await first.administer("/flush", target)
    assert (flushed.status, flushed.json()["flushed"], flushed.json()["acknowledged"]) == (200, 1, True)
    assert (await second.chat("one", MARKS, model=model)).kind == "miss"
    (line,) = [text for text in caplog.messages if text.startswith("flush of ")]
    assert " by 127.0.0.1: acknowledged in " in line
    assert "user:7" not in caplog.text


async def test_a_key_is_flushed_without_its_being_said_in_the_log(both: list[Client], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stored = await both[0].chat("one")
    key = stored.cache_status.partition('key="')[2].partition('"')[0]
    flushed = await both[0].administer("/flush", {"key": key})
    assert (flushed.status, flushed.json()) == (200, {"flushed": 1})
    assert (await both[0].chat("one")).kind == "miss"
    assert f"flush of key {name_digest(key)} by 127.0.0.1: 1 entries deleted" in caplog.messages
    assert key not in caplog.text


@pytest.mark.parametrize("background", [False, True], ids=["waited-for", "in-the-background"])
async def test_a_flush_of_a_version_deletes_its_keys_alone_and_shows_how_far_it_is(
    both: list[Client], redis: RedisServer, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    go_on = held_halfway(both[0], monkeypatch)
    first, keys, old = both[0], Keyspace("test"), 30_000
    await first.chat("kept")
    with redis.client() as client, client.pipeline(transaction=False) as pipeline:
        for number in range(old):
            pipeline.set(keys.entry("old", bytes(32), number.to_bytes(32, "big")), "x")
        pipeline.execute()
        others = {key for key in client.scan_iter() if not key.startswith(keys.entries_of("old").decode()[:-1])}
    ordered = asyncio.create_task(first.administer("/flush", {"version": "old", "background": background}))
    halfway = await until(first, lambda told: told["purge"] is not None and 0 < told["purge"]["deleted"] < old)
    assert halfway["purge"]["done"] is False
    assert halfway["purge"]["name"] == "version:old"
    assert (await first.chat("kept")).kind == "exact", "it serves meanwhile"
    go_on.set()
    purge = (await until(first, lambda told: told["purge"]["done"]))["purge"]
    assert (purge["scanned"], purge["deleted"]) == (old, old)
    assert purge["seconds"] > 0
    answer = await ordered
    assert (answer.status, answer.json().get("flushed")) == ((202, None) if background else (200, old))
    with redis.client() as client:
        assert list(client.scan_iter(keys.entries_of("old"))) == []
        assert others <= set(client.scan_iter())
    assert (await first.chat("kept")).kind == "exact"


async def test_the_command_flushes_on_all_replicas(
    both: list[Client], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFERENCE_CACHE_ADMIN_TOKEN", ADMIN_TOKEN)
    for client in both:
        await client.chat("one", MARKS)
    assert await asyncio.to_thread(main, ["--tag", "user:7", "--admin", both[0].admin_url]) == 0
    assert capsys.readouterr().out == "flushed 1 answers; no replica serves them any more\n"
    assert (await both[1].chat("one", MARKS)).kind == "miss"


async def test_where_the_store_hangs_a_flush_is_in_force_here_and_elsewhere_once_it_answers(
    both: list[Client], redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = both
    for client in both:
        await client.chat("one", MARKS)
    redis.pause()
    refused = await first.administer("/flush", {"tag": "user:7"})
    assert (refused.status, refused.json()["acknowledged"]) == (503, False)
    assert "in force on this replica alone" in refused.json()["error"]["message"]
    assert (await first.chat("one", MARKS)).kind == "miss"
    assert f"flush of tag {name_digest('tag:user:7')} by 127.0.0.1: not acknowledged" in caplog.text
    assert (await first.administer("/flush", {"all": True, "dryRun": True})).status == 503
    assert (await first.administer("/flush", {"key": "ab" * 32})).status == 503
    redis.resume()
    for client in both:
        await until(client, lambda told: told["sharedStore"]["epochsConfirmed"] and not told["sharedStore"]["breakerOpen"])
    async with asyncio.timeout(PATIENCE):
        while first.running.shared.epochs._owed:
            await asyncio.sleep(0.01)
    await until_heeded(second)
    assert (await second.chat("one", MARKS)).kind == "miss"


async def until_heeded(client: Client) -> None:
    """What was flushed may be served to nobody who asks when a lease has passed since."""
    shared, loop = client.running.shared, asyncio.get_running_loop()
    assert shared is not None
    told = asked = loop.time()
    while (await client.chat("one", MARKS | {"Cache-Control": "only-if-cached"})).kind == "exact":
        assert asked < told + shared.epochs.lease_seconds
        await asyncio.sleep(0.01)
        asked = loop.time()


async def test_status_and_metrics_tell_how_the_shared_store_does(both: list[Client], redis: RedisServer) -> None:
    first, second = both
    await first.chat("one")
    assert (await second.chat("one")).kind == "exact"
    told = (await until(second, lambda told: told["sharedStore"]["replicas"] == 2))["sharedStore"]
    assert told["kind"] == "standalone"
    assert (told["healthy"], told["epochsConfirmed"], told["breakerOpen"]) == (True, True, False)
    assert [finding["name"] for finding in told["findings"]] == ["Unlimited"]
    assert (told["maxMemory"], told["policy"]) == (0, "noeviction")
    assert told["usedMemory"] > 0 < told["fragmentationRatio"]
    assert set(told["warming"]) == {"scanned", "loaded", "done"}
    shown = {name.removeprefix("inference_cache_"): value for name, value in (await second.metrics()).items()}
    assert shown["shared_store_up"] == shown["shared_epochs_confirmed"] == shown["shared_entries_hits_total"] == 1
    assert shown["shared_store_used_bytes"] > 0
    assert shown["shared_store_max_bytes"] == shown["shared_store_evicted_total"] == shown["shared_breaker_open"] == 0
    assert shown["shared_replicas"] == 2
    assert shown['shared_calls_made_total{kind="hot"}'] > 0 < shown['shared_calls_made_total{kind="other"}']
    assert shown['shared_calls_failed_total{kind="hot"}'] == shown["shared_epoch_losses_total"] == 0


async def test_a_store_that_does_not_answer_is_not_healthy(start_sidecar: Start, redis: RedisServer) -> None:
    redis.pause()
    client = await start_sidecar(TRUSTING, redis_url=redis.url, sharing=False)
    told = (await until(client, lambda told: told["sharedStore"]["findings"]))["sharedStore"]
    assert (told["healthy"], told["usedMemory"], told["policy"], told["replicas"]) == (False, None, None, None)
    assert told["findings"][0]["name"] == "Unreachable"
    shown = await client.metrics()
    assert shown["inference_cache_shared_store_up"] == 0
    assert "inference_cache_shared_store_used_bytes" not in shown, "what is not known is left out"
    redis.resume()


async def test_a_sidecar_without_a_shared_store_says_so(sidecar: Client) -> None:
    told = await status(sidecar)
    assert (told["sharedStore"], told["purge"]) == (None, None)
    assert not [name for name in await sidecar.metrics() if "_shared_" in name]
