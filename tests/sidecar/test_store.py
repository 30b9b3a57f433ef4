"""One suite for every implementation of `EntryStore`."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.index.scoped import ScopedIndex
from inference_cache_sidecar.store.memory import MemoryStore
from inference_cache_sidecar.store.protocol import EntryStore

DIMENSIONS = 16
CAP = 4 * 2**20
LONGEST_STALE = 100.0
BEGAN = 1_800_000_000.0
SCOPE = hashlib.sha256(b"scope").digest()


class Clock:
    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> float:
        return self.now


def key(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def entry(name: object, *, answer: bytes = b'{"choices":[]}', tag: str = "tag:t", epochs: MemoryEpochs | None = None) -> Entry:
    return Entry(
        scope=key("scope"),
        digest=key(name),
        endpoint=Endpoint.CHAT,
        prompt=f"What about {name}?",
        answer=answer,
        answer_id="chatcmpl-1",
        headers=(("content-type", "application/json"),),
        stamps=tuple((name, epochs.current(name) if epochs else 0) for name in ("cache", tag)),
        created=BEGAN,
        ttl_seconds=60.0,
        prompt_tokens=10,
        completion_tokens=20,
        upstream_seconds=1.0,
        semantic=True,
    )


def vector(seed: int) -> Vector:
    made = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    unit: Vector = made / np.linalg.norm(made)
    return unit


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def epochs(clock: Clock) -> MemoryEpochs:
    return MemoryEpochs(clock=clock)


@pytest.fixture(params=[pytest.param("memory", id="memory")])
async def store(clock: Clock, epochs: MemoryEpochs) -> AsyncIterator[EntryStore]:
    index = ScopedIndex(DIMENSIONS)
    yield MemoryStore(CAP, epochs, index, clock=clock, longest_stale_seconds=LONGEST_STALE)
    await index.close()


async def test_what_was_put_is_got(store: EntryStore) -> None:
    assert await store.put(entry(1), None)
    assert await store.get(SCOPE, key(1)) == entry(1)
    assert await store.peek(SCOPE, key(1)) == entry(1)
    assert await store.get(SCOPE, key(2)) is None
    assert await store.peek(SCOPE, key(2)) is None


async def test_a_replaced_entry_leaves_nothing_behind(store: EntryStore) -> None:
    await store.put(entry(1, answer=b"a" * 5000), vector(1))
    first = store.stats()
    for _ in range(200):
        await store.put(entry(1, answer=b"b" * 5000), vector(1))
    last = store.stats()
    assert (await store.get(SCOPE, key(1))) == entry(1, answer=b"b" * 5000)
    assert (last.entries, last.vectors, last.entry_bytes) == (1, 1, first.entry_bytes)
    assert last.used_bytes < first.used_bytes + 2**18


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        pytest.param(vector(1), None, 0, id="the-new-one-has-none"),
        pytest.param(None, vector(1), 1, id="only-the-new-one-has-one"),
        pytest.param(vector(1), vector(2), 1, id="both-have-one"),
    ],
)
async def test_a_replaced_entry_takes_its_vector_along(store: EntryStore, before: Vector | None, after: Vector | None, left: int) -> None:
    await store.put(entry(1), before)
    await store.put(entry(1), after)
    found = await store.neighbours(key("scope"), vector(1) if after is None else after, 5)
    assert [neighbour.digest for neighbour in found] == [key(1)] * left
    assert store.stats().vectors == left


async def test_a_replaced_entry_of_another_scope_is_found_in_its_own_alone(store: EntryStore) -> None:
    await store.put(entry(1), vector(1))
    await store.put(replace(entry(1), scope=key("other")), vector(1))
    assert await store.neighbours(key("scope"), vector(1), 5) == []
    assert len(await store.neighbours(key("other"), vector(1), 5)) == 1
    assert store.stats().vectors == 1


async def test_a_deleted_entry_is_gone_with_its_vector(store: EntryStore) -> None:
    await store.put(entry(1), vector(1))
    assert await store.delete(key(1))
    assert not await store.delete(key(1))
    assert await store.get(SCOPE, key(1)) is None
    assert await store.neighbours(key("scope"), vector(1), 5) == []
    assert (store.stats().entries, store.stats().vectors, store.stats().entry_bytes) == (0, 0, 0)


async def test_neighbours_come_nearest_first_and_from_the_scope_alone(store: EntryStore) -> None:
    for number in range(5):
        await store.put(entry(number), vector(number))
    await store.put(replace(entry("far"), scope=key("other")), vector(3))
    found = await store.neighbours(key("scope"), vector(3), 3)
    assert found[0].digest == key(3)
    assert len(found) == 3
    assert [neighbour.similarity for neighbour in found] == sorted((n.similarity for n in found), reverse=True)
    assert key("far") not in {neighbour.digest for neighbour in found}


@pytest.mark.parametrize("wrong", [pytest.param(np.ones(3, dtype=np.float32), id="size"), pytest.param(vector(1) * np.nan, id="nan")])
async def test_a_vector_that_does_not_fit_is_refused_and_nothing_is_kept(store: EntryStore, wrong: Vector) -> None:
    with pytest.raises(ValueError, match="vector"):
        await store.put(entry(1), wrong)
    assert await store.get(SCOPE, key(1)) is None
    assert store.stats().entries == 0


@pytest.mark.parametrize(
    ("age", "stale_seconds", "served"),
    [
        pytest.param(0.0, 0.0, True, id="fresh"),
        pytest.param(59.9, 0.0, True, id="just-fresh"),
        pytest.param(60.0, 0.0, False, id="expired"),
        pytest.param(60.0, 10.0, True, id="stale-but-allowed"),
        pytest.param(69.9, 10.0, True, id="just-stale-enough"),
        pytest.param(70.0, 10.0, False, id="too-stale"),
    ],
)
async def test_an_entry_is_served_for_its_time_and_what_staleness_is_allowed(
    store: EntryStore, clock: Clock, age: float, stale_seconds: float, served: bool
) -> None:
    await store.put(entry(1), None)
    clock.now += age
    assert (await store.get(SCOPE, key(1), stale_seconds=stale_seconds) is not None) is served


async def test_a_look_without_stale_reading_does_not_end_a_stale_entry(store: EntryStore, clock: Clock) -> None:
    await store.put(entry(1), None)
    clock.now += 80
    assert await store.get(SCOPE, key(1)) is None
    assert await store.get(SCOPE, key(1), stale_seconds=50) is not None


async def test_an_entry_past_the_longest_staleness_is_dropped_when_asked_for(store: EntryStore, clock: Clock) -> None:
    await store.put(entry(1), vector(1))
    clock.now += 60 + LONGEST_STALE
    assert await store.get(SCOPE, key(1), stale_seconds=1e6) is None
    assert (store.stats().entries, store.stats().vectors, store.stats().expired) == (0, 0, 1)


async def test_a_flushed_entry_is_never_served_and_dropped_when_asked_for(store: EntryStore, epochs: MemoryEpochs) -> None:
    await store.put(entry(1, tag="tag:a"), vector(1))
    await store.put(entry(2, tag="tag:b"), vector(2))
    epochs.raise_epoch("tag:a")
    assert await store.get(SCOPE, key(1), stale_seconds=50) is None
    assert await store.get(SCOPE, key(2)) is not None
    assert (store.stats().entries, store.stats().vectors, store.stats().flushed) == (1, 1, 1)


async def test_a_late_write_under_an_old_epoch_is_not_served(store: EntryStore, epochs: MemoryEpochs) -> None:
    late = entry(1, epochs=epochs)
    epochs.raise_epoch("cache")
    await store.put(late, None)
    assert await store.get(SCOPE, key(1)) is None
    await store.put(entry(1, epochs=epochs), None)
    assert await store.get(SCOPE, key(1)) is not None


async def test_purge_deletes_what_is_flushed_or_expired_and_nothing_else(store: EntryStore, epochs: MemoryEpochs, clock: Clock) -> None:
    for number in range(300):
        await store.put(entry(number, tag=f"tag:{number % 3}"), vector(number))
    await store.put(replace(entry("old"), created=BEGAN - 1000), vector(1))
    epochs.raise_epoch("tag:0")
    before = store.stats().entry_bytes
    assert await store.purge("cache") == 100
    assert await store.purge("cache") == 0
    stats = store.stats()
    assert (stats.entries, stats.vectors, stats.flushed, stats.expired) == (200, 200, 100, 1)
    assert stats.entry_bytes < before


async def test_count_tells_how_many_reachable_entries_match(store: EntryStore, epochs: MemoryEpochs, clock: Clock) -> None:
    for number in range(30):
        await store.put(entry(number, tag=f"tag:{number % 3}"), None)
    epochs.raise_epoch("tag:1")
    assert await store.count("tag:0") == 10
    assert await store.count("cache") == 20
    clock.now += 60
    assert await store.count("cache") == 0
    assert store.stats().entries == 30


@pytest.mark.parametrize(
    "long_work", [pytest.param(lambda s: s.purge("cache"), id="purge"), pytest.param(lambda s: s.count("cache"), id="count")]
)
async def test_long_work_gives_way_to_the_loop(store: EntryStore, long_work: Callable[[EntryStore], Awaitable[int]]) -> None:
    for number in range(6000):
        await store.put(entry(number), None)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await long_work(store)
    beside.cancel()
    assert turns >= 3


async def test_entries_may_come_and_go_while_a_purge_runs(store: EntryStore, epochs: MemoryEpochs) -> None:
    for number in range(3000):
        await store.put(entry(number, tag="tag:a"), vector(number))
    epochs.raise_epoch("tag:a")
    purging = asyncio.create_task(store.purge("cache"))
    for number in range(3000, 3500):
        await store.put(entry(number, tag="tag:b"), vector(number))
        await store.delete(key(number - 2000))
        await asyncio.sleep(0)
    await purging
    assert store.stats().entries == store.stats().vectors == 500
    assert all([await store.get(SCOPE, key(number)) is not None for number in range(3000, 3500)])


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(entry(1, answer=b"x" * CAP), id="larger-than-the-cap"),
        pytest.param(entry(1, answer=b"x" * (CAP // 8)), id="an-eighth-of-the-cap"),
        pytest.param(replace(entry(1), digest=b"short", scope=b"short"), id="keys-of-wrong-size"),
        pytest.param(replace(entry(1), prompt_tokens=-1), id="negative-tokens"),
    ],
)
async def test_what_cannot_be_kept_is_refused_and_evicts_nothing(store: EntryStore, odd: Entry) -> None:
    await store.put(entry("kept"), None)
    assert not await store.put(odd, None)
    assert (store.stats().entries, store.stats().refused, store.stats().evicted) == (1, 1, 0)


async def test_an_empty_answer_and_a_large_one_come_back(store: EntryStore) -> None:
    for answer in (b"", b"x" * (CAP // 17), b"y" * 20_000):
        await store.put(entry(1, answer=answer), None)
        found = await store.get(SCOPE, key(1))
        assert found is not None
        assert found.answer == answer
