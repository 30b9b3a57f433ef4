"""The feature cache in front of a real Feast feature server with a SQLite online store, over real Redis servers."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from tests.services.feast_server import feast_server
from tests.services.feature_caches import Replica, feature_cache

from inference_cache_toolkit.features_client import FeatureClient
from inference_cache_toolkit.redis_server import RedisServer

pytestmark = pytest.mark.services

STATS = ["user_stats:age", "user_stats:score", "user_stats:city", "user_stats:clicks"]
SHORT_LEASE_SECONDS = 2.0
ITEMS = ["item_embeddings:embedding", "item_embeddings:title"]


@pytest.fixture(scope="module")
def feast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with feast_server(tmp_path_factory.mktemp("feast")) as url:
        yield url


@pytest.fixture
async def replica(feast: str, redis: RedisServer) -> AsyncIterator[Replica]:
    async with feature_cache(feast, redis.url) as made:
        yield made


async def ask(url: str, document: Any) -> tuple[int, Any, str]:
    """Status, JSON and Cache-Status."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + "/get-online-features", json=document, timeout=aiohttp.ClientTimeout(120)) as answer,
    ):
        return answer.status, await answer.json(), answer.headers.get("Cache-Status", "")


def by_name(answer: Any) -> dict[str, Any]:
    """Feast orders the features of a view by the hash of its process."""
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


async def same(cached: str, feast: str, document: Any) -> str:
    """Asserts that both answer alike; the cache's Cache-Status."""
    (status, ours, cache_status), (direct, theirs, _) = await ask(cached, document), await ask(feast, document)
    assert status == direct == 200
    assert by_name(ours) == by_name(theirs)
    assert ours["metadata"] == theirs["metadata"]
    return cache_status


def asked(features: list[str], full: bool = False, **entities: list[Any]) -> dict[str, Any]:
    return {"features": features, "entities": entities, "full_feature_names": full}


QUESTIONS = [
    pytest.param(asked(STATS, user_id=[7, 8, 9, 10, 11]), id="numbers-that-json-has-not"),
    pytest.param(asked(STATS, user_id=[0, 10, 4, 999_999]), id="nulls-empty-lists-and-nobody"),
    pytest.param(asked(STATS, user_id=["1", "02", " 3"]), id="numbers-as-texts"),
    pytest.param(asked(ITEMS, item_id=["i1", "i2", "nothing"]), id="embeddings"),
    pytest.param(asked([*ITEMS, *STATS], True, user_id=[1, 2], item_id=["i1", "i1"]), id="two-views-full-names"),
    pytest.param(asked(["visits:seen", "user_stats:age"], item_id=["i5", "i77"], user_id=[3, 4]), id="a-view-of-two-entities"),
    pytest.param(asked(["item_embeddings:title"], user_id=[1, 2, 1], item_id=["i1", "i1", "i1"]), id="equal-rows"),
]


@pytest.mark.parametrize("document", QUESTIONS)
async def test_hits_say_what_feast_says(replica: Replica, feast: str, document: Any) -> None:
    assert "fwd=miss" in await same(replica.url, feast, document)
    assert "; hit;" in await same(replica.url, feast, document)


async def test_partial_answers_say_what_feast_says(replica: Replica, feast: str) -> None:
    await same(replica.url, feast, asked(STATS, user_id=[21, 22]))
    await same(replica.url, feast, asked([*STATS, *ITEMS], user_id=[20], item_id=["i20"]))
    assert "cells=8/16" in await same(replica.url, feast, asked(STATS, user_id=[23, 21, 24, 22]))
    await same(replica.url, feast, asked(ITEMS[:1], user_id=[31, 32], item_id=["i1", "i2"]))
    await same(replica.url, feast, asked([*ITEMS], user_id=[33], item_id=["i3"]))
    assert "cells=2/4" in await same(replica.url, feast, asked(ITEMS, user_id=[31, 32], item_id=["i1", "i2"]))


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(asked(["user_stats:nothing"], user_id=[1]), id="unknown-feature"),
        pytest.param(asked(["nowhere:age"], user_id=[1]), id="unknown-view"),
        pytest.param(asked(["user_stats:age", "user_stats:age"], user_id=[1]), id="feature-twice"),
        pytest.param({"entities": {"user_id": [1]}, "feature_service": "none"}, id="unknown-service"),
        pytest.param({"features": STATS}, id="no-entities"),
    ],
)
async def test_feasts_refusals_are_passed_on(replica: Replica, feast: str, document: Any) -> None:
    for _ in range(2):
        assert (await ask(replica.url, document))[:2] == (await ask(feast, document))[:2]


USERS = st.lists(st.integers(40, 46), min_size=1, max_size=6)
SOME_FEATURES = st.lists(st.sampled_from([*STATS, *ITEMS, "visits:seen"]), min_size=1, max_size=5, unique=True)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.lists(SOME_FEATURES, min_size=1, max_size=2), st.lists(st.tuples(st.integers(0, 1), USERS), min_size=3, max_size=8))
def test_any_sequence_of_requests_is_answered_as_by_feast(
    feast: str, redis_of_the_run: RedisServer, questions: list[list[str]], requests: list[tuple[int, list[int]]]
) -> None:
    async def play() -> None:
        async with feature_cache(feast, redis_of_the_run.url) as replica:
            for question, users in requests:
                document = asked(questions[question % len(questions)], user_id=users, item_id=[f"i{user % 3}" for user in users])
                await same(replica.url, feast, document)

    asyncio.run(play())


@pytest.mark.parametrize("source", [None, "user_stats_push"], ids=["write", "push"])
async def test_what_is_written_through_the_cache_is_read_at_once(replica: Replica, feast: str, source: str | None) -> None:
    user = 60 if source is None else 61
    async with FeatureClient(replica.url) as client:
        before = await client.batch_get({"user_id": [user, user + 10]}, STATS)
        row = {"user_id": user, "age": 5, "score": 0.25, "city": "Here", "clicks": [1, 2]}
        await client.batch_set("user_stats", [row | {"created": "2026-02-01T00:00:00Z"}], push_source=source)
        after = await client.batch_get({"user_id": [user, user + 10]}, STATS)
    assert after[0] == {"user_stats:age": 5, "user_stats:score": 0.25, "user_stats:city": "Here", "user_stats:clicks": [1, 2]}
    assert (after[0] != before[0], after[1]) == (True, before[1])
    assert replica.cache.counts.dropped_entities == 1
    assert replica.cache.counts.partial == 1


async def test_the_client_reads_users_and_embeddings(replica: Replica) -> None:
    async with FeatureClient(replica.url) as client:
        for _ in range(2):
            assert await client.user_features(10, ["user_stats:city", "user_stats:age"]) == {
                "user_stats:city": None,
                "user_stats:age": 2**60 + 10,
            }
            first, nothing = await client.item_embeddings(["i3", "nothing"])
            assert (first, nothing) == ([float(number) for number in range(1, 9)], None)
    assert replica.cache.counts.hits == 2


async def test_what_one_replica_stored_the_others_answer_and_a_drop_reaches_all(feast: str, shared_server: str) -> None:
    document = asked(STATS, user_id=list(range(100, 140)))
    async with feature_cache(feast, shared_server) as one, feature_cache(feast, shared_server) as other:
        assert "fwd=miss" in await same(one.url, feast, document)
        assert "; hit;" in await same(other.url, feast, document)
        assert "; hit;" in await same(one.url, feast, document)
        await other.cache.drop_entity("user_id", "120")
        for replica in (one, other):
            asked_before = replica.cache.counts.upstream_calls
            status = await same(replica.url, feast, document)
            assert ("cells=156/160" in status) == (replica is one)
            assert replica.cache.counts.upstream_calls - asked_before == (replica is one)


async def test_with_encryption_the_store_shows_no_values(feast: str, redis: RedisServer) -> None:
    async with feature_cache(feast, redis.url, keys=(b"k" * 32,)) as one, feature_cache(feast, redis.url, keys=(b"k" * 32,)) as other:
        document = asked(STATS, user_id=[4242, 1])
        await same(one.url, feast, document)
        assert "; hit;" in await same(other.url, feast, document)
    with Redis.from_url(redis.url) as client:
        kept = [client.get(key) for key in client.scan_iter("*:feature:*")]
        names = list(client.scan_iter("*"))
    assert len(kept) == 3
    assert not any(b"City" in value or b"PRESENT" in value for value in kept if value is not None)
    assert not any(b"4242" in name for name in names)


async def test_a_hanging_store_costs_no_answer(feast: str, redis: RedisServer) -> None:
    document = asked(STATS, user_id=[1, 2, 3])
    async with feature_cache(feast, redis.url, deadline_seconds=0.05, lease_seconds=SHORT_LEASE_SECONDS) as replica:
        await same(replica.url, feast, document)
        redis.pause()
        try:
            ends = time.monotonic() + 2 * SHORT_LEASE_SECONDS
            while time.monotonic() < ends:
                await same(replica.url, feast, asked(STATS, user_id=[4, 5]))
                await same(replica.url, feast, document)
            assert not replica.epochs.confirmed
            assert 'detail="epochs"' in await same(replica.url, feast, document)
        finally:
            redis.resume()
        async with asyncio.timeout(60):
            while "; hit;" not in await same(replica.url, feast, document):
                await asyncio.sleep(0.05)


async def test_a_store_that_was_emptied_is_filled_again(replica: Replica, feast: str, redis: RedisServer) -> None:
    document = asked(STATS, user_id=[1, 2, 3])
    await same(replica.url, feast, document)
    redis.empty()
    async with asyncio.timeout(60):
        while "; hit;" not in await same(replica.url, feast, document):
            await asyncio.sleep(0.05)
