"""When the shared store breaks: every request is answered, nothing flushed comes back, and sharing goes on once it is well."""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import orjson
import pytest
from aiohttp.test_utils import make_mocked_request
from redis import Redis
from tests.services.fault_proxy import FaultProxy
from tests.sidecar.conftest import CHAT, PATIENCE, Client

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.access import Caller
from inference_cache_sidecar.placing import Place
from inference_cache_sidecar.settings import Secrets
from inference_cache_sidecar.shared.changes import Change
from inference_cache_toolkit.redis_server import RedisServer

pytestmark = pytest.mark.slow

Start = Callable[..., Awaitable[Client]]
QUESTION = "How do I reset my password?"
TRUSTING = {"trustedHeaders": {"from": ["127.0.0.0/8"]}}
HASTY = {"store": {"redis": {"deadline": "100ms"}}}
BRIEFLY = {"invalidation": {"lease": "3s"}}
LEASE_SECONDS = 3.0


async def until_shared(client: Client) -> None:
    async with asyncio.timeout(PATIENCE):
        while client.running.shared is None or not client.running.shared.epochs.confirmed:
            await asyncio.sleep(0.01)


async def test_a_sidecar_starts_without_its_store_and_shares_once_that_is_there(start_sidecar: Start, redis: RedisServer) -> None:
    redis.kill()
    first, second = [await start_sidecar(redis_url=redis.url, sharing=False) for _ in range(2)]
    assert (await first.chat(QUESTION)).status == 200
    redis.restart()
    # Always another question: what a replica has in memory, it does not store for the others once more.
    async with asyncio.timeout(PATIENCE):
        for number in itertools.count():
            await first.chat(f"{QUESTION} {number}")
            if (await second.chat(f"{QUESTION} {number}", {"Cache-Control": "only-if-cached"})).kind == "exact":
                break
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_every_request_is_answered_while_the_store_is_gone(start_sidecar: Start, redis: RedisServer, fault: str) -> None:
    client = await start_sidecar(HASTY, redis_url=redis.url)
    await client.chat(QUESTION)
    getattr(redis, fault)()
    answers = await asyncio.gather(*(client.chat(f"Question number {number}?") for number in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert (await client.chat(QUESTION)).status == 200


async def test_memory_serves_no_longer_than_the_lease_when_flushes_could_not_be_heard_of(start_sidecar: Start, redis: RedisServer) -> None:
    client = await start_sidecar(HASTY | BRIEFLY, redis_url=redis.url)
    async with asyncio.timeout(PATIENCE):
        while (await client.chat(QUESTION)).kind != "exact":
            await asyncio.sleep(0.05)
    redis.pause()
    async with asyncio.timeout(PATIENCE):
        while (await client.chat(QUESTION)).kind == "exact":
            await asyncio.sleep(0.05)
    redis.resume()
    async with asyncio.timeout(PATIENCE):
        while (await client.chat(QUESTION)).kind != "exact":
            await asyncio.sleep(0.05)


async def test_a_cut_off_replica_serves_nothing_flushed_once_it_is_back(
    start_sidecar: Start, redis: RedisServer, start_fault_proxy: Callable[[int], Awaitable[FaultProxy]]
) -> None:
    proxy = await start_fault_proxy(redis.port)
    near, far = await start_sidecar(BRIEFLY, redis_url=redis.url), await start_sidecar(BRIEFLY, redis_url=proxy.url)
    for client in (near, far):
        await client.chat(QUESTION)
    await proxy.cut()
    assert (await near.administer("/flush", {"all": True})).status == 200
    assert (await far.chat(QUESTION)).kind == "miss"
    await proxy.heal()
    await until_shared(far)
    assert (await far.chat(QUESTION)).kind == "miss"


async def test_a_flush_while_the_store_is_gone_is_in_force_here_at_once_and_everywhere_when_it_is_back(
    start_sidecar: Start, redis: RedisServer, start_fault_proxy: Callable[[int], Awaitable[FaultProxy]]
) -> None:
    proxy = await start_fault_proxy(redis.port)
    near, far = await start_sidecar(BRIEFLY, redis_url=redis.url), await start_sidecar(BRIEFLY, redis_url=proxy.url)
    for client in (near, far):
        await client.chat(QUESTION)
    await proxy.cut()
    refused = await far.administer("/flush", {"all": True})
    assert refused.status == 503
    assert (await far.chat(QUESTION)).kind != "exact"
    await proxy.heal()
    async with asyncio.timeout(PATIENCE):
        while (await near.chat(QUESTION, {"Cache-Control": "only-if-cached"})).status == 200:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "junk", [pytest.param(b"", id="empty"), pytest.param(os.urandom(700), id="random"), pytest.param(b"\x00(\xb5/\xfd", id="cut")]
)
async def test_junk_in_the_store_is_a_miss(start_sidecar: Start, redis: RedisServer, junk: bytes) -> None:
    first = await start_sidecar(redis_url=redis.url)
    await first.chat(QUESTION)
    with Redis.from_url(redis.url) as client:
        entries = client.keys("inference-cache:*:e1:*")
        assert len(entries) == 1
        for key in entries:
            client.set(key, junk)
    second = await start_sidecar(redis_url=redis.url)
    assert (await second.chat(QUESTION)).kind == "miss"
    third = await start_sidecar(redis_url=redis.url)
    assert (await third.chat(QUESTION)).kind == "exact"


async def test_keys_of_the_wrong_type_cost_sharing_and_never_an_answer(start_sidecar: Start, redis: RedisServer) -> None:
    first = await start_sidecar(redis_url=redis.url)
    await first.chat(QUESTION)
    with Redis.from_url(redis.url) as client:
        for key in client.keys("inference-cache:*"):
            client.delete(key)
            client.lpush(key, "junk")
    second = await start_sidecar(redis_url=redis.url, sharing=False)
    for client in (first, second):
        for number in range(5):
            assert (await client.chat(f"Question number {number}?")).status == 200


@pytest.mark.parametrize("length", [100, 3000])
async def test_a_store_full_to_the_brim_costs_hits_and_never_an_answer(
    start_sidecar: Start, start_redis: Callable[..., RedisServer], length: int
) -> None:
    full = start_redis(config=("maxmemory 1mb", "maxmemory-policy noeviction"))
    client = await start_sidecar(redis_url=full.url, sharing=False)
    for number in range(10):
        assert (await client.chat(f"Question number {number}? " + "x" * length)).status == 200


async def test_encrypted_the_store_shows_nothing_of_questions_answers_tags_or_credentials(start_sidecar: Start, redis: RedisServer) -> None:
    secrets = Secrets(encryption_keys=(b"k" * 32,))
    spec = {**TRUSTING, "semantic": {"mode": "Serve"}}
    first, second = [await start_sidecar(spec, redis_url=redis.url, secrets=secrets) for _ in range(2)]
    headers = {"Authorization": "Bearer sk-very-secret", "x-inference-cache-tags": "user:zebedee"}
    asked = await first.chat("Who knows the saffron recipe of Mrs Ottoline?", headers, stream=False)
    streamed = await first.chat("Where is the hidden cellar?", headers, stream=True)
    assert (asked.status, streamed.status) == (200, 200)
    assert (await second.chat("Who knows the saffron recipe of Mrs Ottoline?", headers)).kind == "exact"
    flushed = await first.administer("/flush", {"tag": "user:9"})
    assert flushed.status == 200
    words = [word for word in asked.text.split() if len(word) > 6][:5]
    with Redis.from_url(redis.url) as client:
        kept = b"".join(key + b"=" + client.dump(key) + b"\n" for key in client.keys("*"))
        assert len(client.keys("*:e1:*")) == 2
        assert any(client.type(key) == b"stream" for key in client.keys("*"))
    for plain in ("saffron", "Ottoline", "cellar", "zebedee", "sk-very-secret", "chatcmpl", "assistant", *words):
        assert plain.encode() not in kept, plain


async def test_a_store_full_to_the_brim_goes_on_answering_with_what_it_has_and_takes_flushes(
    start_sidecar: Start, start_redis: Callable[..., RedisServer]
) -> None:
    store = start_redis(config=("maxmemory-policy noeviction",))
    first, second = [await start_sidecar(BRIEFLY, redis_url=store.url) for _ in range(2)]
    await first.chat(QUESTION)
    assert (await second.chat(QUESTION)).kind == "exact"
    assert second.running.shared is not None
    epochs = second.running.shared.epochs
    with store.client() as client:
        client.config_set("maxmemory", "1mb")
    last = epochs._valid_until
    async with asyncio.timeout(PATIENCE):
        while epochs._valid_until < last + LEASE_SECONDS or not epochs.confirmed:
            await asyncio.sleep(0.05)
    assert (await second.chat(QUESTION)).kind == "exact", "also once the lease has run out since"
    assert (await first.chat("Something else?")).status == 200
    assert (await first.administer("/flush", {"all": True})).status == 200
    assert (await second.chat(QUESTION)).kind == "miss"


async def test_a_vector_of_another_size_is_left_out_and_following_goes_on(start_sidecar: Start, redis: RedisServer) -> None:
    first, second = [await start_sidecar(redis_url=redis.url) for _ in range(2)]
    tier = first.running.shared
    assert tier is not None
    await first.chat(QUESTION)
    entry = await first.running.store.get(*place_of(first, QUESTION))
    assert entry is not None
    await tier.entries.put(replace(entry, digest=b"d" * 32), np.ones(383, dtype=np.float32) / np.float32(383**0.5))
    await tier.changes.tell(Change("stored", tier.entries.key(entry.scope, b"d" * 32)))
    await first.chat("Where can I see my invoices?")
    async with asyncio.timeout(PATIENCE):
        while second.running.store.stats().vectors < 2:
            await asyncio.sleep(0.01)


async def test_what_was_read_before_it_was_deleted_does_not_come_back(start_sidecar: Start, redis: RedisServer) -> None:
    first, second = [await start_sidecar(redis_url=redis.url) for _ in range(2)]
    await first.chat(QUESTION)
    scope, digest = place_of(first, QUESTION)
    tier, reading, go_on = second.running.shared, asyncio.Event(), asyncio.Event()
    assert tier is not None
    get = tier.entries.get

    async def held(*key: bytes) -> object:
        found = await get(*key)
        reading.set()
        await go_on.wait()
        return found

    tier.entries.get = held  # type: ignore[method-assign, assignment]  # to look at the moment in between
    await second.running.store.delete(b"another digest".ljust(32))
    fetched = asyncio.create_task(second.running.store.get(scope, digest))
    await reading.wait()
    await second.running.store.delete(digest)
    go_on.set()
    assert await fetched is None
    tier.entries.get = get  # type: ignore[method-assign]
    assert await second.running.store.get(scope, digest) is None


async def test_the_agreed_tenancy_key_outlives_the_encryption_key_it_was_stored_under(start_sidecar: Start, redis: RedisServer) -> None:
    old, new = b"o" * 32, b"n" * 32
    for keys in ((old,), (new, old), (new,)):
        client = await start_sidecar(redis_url=redis.url, secrets=Secrets(encryption_keys=keys))
        if keys == (old,):
            tenant = agreed_tenant(client)
        assert agreed_tenant(client) == tenant


def agreed_tenant(client: Client) -> bytes:
    placer = client.running.parts.placer
    caller: Caller = placer._tenancy.caller({"Authorization": "Bearer sk"})
    return caller.tenant


def place_of(client: Client, prompt: str) -> tuple[bytes, bytes]:
    """Scope and digest of the question as `Client.chat` asks it."""
    body = orjson.dumps({"model": "tiny", "messages": [{"role": "user", "content": prompt}]})
    request = make_mocked_request("POST", CHAT, headers={"Content-Type": "application/json"})
    place = client.running.parts.placer.place(request, Endpoint.CHAT, body)
    assert isinstance(place, Place)
    return place.scope, place.digest
