"""One suite for every implementation of `EntryStore`: in memory, and in front of one Redis, Redis watched by Sentinel, a Cluster."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_contract.epochs import Epochs
from inference_cache_contract.spec import parse_spec
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.index.scoped import ScopedIndex
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.tier import shared_tier
from inference_cache_sidecar.shared.values import manifest
from inference_cache_sidecar.store.memory import MemoryStore
from inference_cache_sidecar.store.protocol import EntryStore
from inference_cache_sidecar.store.tiered import TieredStore

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


def entry(name: object, *, answer: bytes = b'{"choices":[]}') -> Entry:
    """Without stamps."""
    return Entry(
        scope=key("scope"),
        digest=key(name),
        endpoint=Endpoint.CHAT,
        prompt=f"What about {name}?",
        answer=answer,
        answer_id="chatcmpl-1",
        headers=(("content-type", "application/json"),),
        stamps=(),
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


@dataclass(frozen=True)
class Kept:
    """A store and the epochs it goes by."""

    store: EntryStore
    epochs: Epochs

    async def stamped(self, plain: Entry, tag: str = "tag:t") -> Entry:
        stamps = await self.epochs.stamps(["cache", tag])
        assert stamps is not None
        return replace(plain, stamps=stamps)

    async def put(self, plain: Entry, vector: Vector | None = None, tag: str = "tag:t") -> Entry:
        """Stored under the epochs of now."""
        made = await self.stamped(plain, tag)
        assert await self.store.put(made, vector)
        return made


@asynccontextmanager
async def shared(url: str, memory: Callable[[Epochs], MemoryStore], clock: Clock) -> AsyncIterator[Kept]:
    spec = parse_spec({"stale": {"ifError": f"{LONGEST_STALE}s"}, "store": {"redis": {"deadline": "5s"}}})
    async with shared_tier(parse_redis_url(url), "test", spec, (), clock) as tier:
        tier.values.dimensions = DIMENSIONS
        tier.values.manifest = manifest("an embedder", DIMENSIONS)
        async with asyncio.timeout(30):
            while not tier.epochs.confirmed:
                await asyncio.sleep(0.01)
        yield Kept(TieredStore(memory(tier.epochs), tier, "v1", clock, lambda _: None), tier.epochs)


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", id="standalone"),
        pytest.param("sentinel", marks=pytest.mark.slow),
        pytest.param("cluster", marks=pytest.mark.slow),
    ]
)
async def kept(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Kept]:
    index = ScopedIndex(DIMENSIONS)

    def memory(epochs: Epochs) -> MemoryStore:
        return MemoryStore(CAP, epochs, index, clock=clock, longest_stale_seconds=LONGEST_STALE)

    if request.param == "memory":
        epochs = MemoryEpochs(clock=clock)
        yield Kept(memory(epochs), epochs)
    else:
        async with shared(request.getfixturevalue(request.param).url, memory, clock) as made:
            yield made
    await index.close()


async def test_what_was_put_is_got(kept: Kept) -> None:
    made = await kept.put(entry(1))
    assert await kept.store.get(SCOPE, key(1)) == made
    assert await kept.store.peek(SCOPE, key(1)) == made
    assert await kept.store.get(SCOPE, key(2)) is None
    assert await kept.store.peek(SCOPE, key(2)) is None


async def test_a_replaced_entry_leaves_nothing_behind(kept: Kept) -> None:
    await kept.put(entry(1, answer=b"a" * 5000), vector(1))
    first = kept.store.stats()
    for _ in range(200):
        await kept.put(entry(1, answer=b"b" * 5000), vector(1))
    last = kept.store.stats()
    found = await kept.store.get(SCOPE, key(1))
    assert found is not None
    assert found.answer == b"b" * 5000
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
async def test_a_replaced_entry_takes_its_vector_along(kept: Kept, before: Vector | None, after: Vector | None, left: int) -> None:
    await kept.put(entry(1), before)
    await kept.put(entry(1), after)
    found = await kept.store.neighbours(key("scope"), vector(1) if after is None else after, 5)
    assert [neighbour.digest for neighbour in found] == [key(1)] * left
    assert kept.store.stats().vectors == left


async def test_a_replaced_entry_of_another_scope_is_found_in_its_own_alone(kept: Kept) -> None:
    await kept.put(entry(1), vector(1))
    await kept.put(replace(entry(1), scope=key("other")), vector(1))
    assert await kept.store.neighbours(key("scope"), vector(1), 5) == []
    assert len(await kept.store.neighbours(key("other"), vector(1), 5)) == 1
    assert kept.store.stats().vectors == 1


async def test_a_deleted_entry_is_gone_with_its_vector(kept: Kept) -> None:
    await kept.put(entry(1), vector(1))
    assert await kept.store.delete(key(1))
    assert not await kept.store.delete(key(1))
    assert await kept.store.get(SCOPE, key(1)) is None
    assert await kept.store.neighbours(key("scope"), vector(1), 5) == []
    assert (kept.store.stats().entries, kept.store.stats().vectors, kept.store.stats().entry_bytes) == (0, 0, 0)


async def test_neighbours_come_nearest_first_and_from_the_scope_alone(kept: Kept) -> None:
    for number in range(5):
        await kept.put(entry(number), vector(number))
    await kept.put(replace(entry("far"), scope=key("other")), vector(3))
    found = await kept.store.neighbours(key("scope"), vector(3), 3)
    assert found[0].digest == key(3)
    assert len(found) == 3
    assert [neighbour.similarity for neighbour in found] == sorted((n.similarity for n in found), reverse=True)
    assert key("far") not in {neighbour.digest for neighbour in found}


@pytest.mark.parametrize("wrong", [pytest.param(np.ones(3, dtype=np.float32), id="size"), pytest.param(vector(1) * np.nan, id="nan")])
async def test_a_vector_that_does_not_fit_is_refused_and_nothing_is_kept(kept: Kept, wrong: Vector) -> None:
    made = await kept.stamped(entry(1))
    with pytest.raises(ValueError, match="vector"):
        await kept.store.put(made, wrong)
    assert await kept.store.get(SCOPE, key(1)) is None
    assert kept.store.stats().entries == 0


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
    kept: Kept, clock: Clock, age: float, stale_seconds: float, served: bool
) -> None:
    await kept.put(entry(1), None)
    clock.now += age
    assert (await kept.store.get(SCOPE, key(1), stale_seconds=stale_seconds) is not None) is served


async def test_a_look_without_stale_reading_does_not_end_a_stale_entry(kept: Kept, clock: Clock) -> None:
    await kept.put(entry(1), None)
    clock.now += 80
    assert await kept.store.get(SCOPE, key(1)) is None
    assert await kept.store.get(SCOPE, key(1), stale_seconds=50) is not None


async def test_an_entry_past_the_longest_staleness_is_dropped_when_asked_for(kept: Kept, clock: Clock) -> None:
    await kept.put(entry(1), vector(1))
    clock.now += 60 + LONGEST_STALE
    assert await kept.store.get(SCOPE, key(1), stale_seconds=1e6) is None
    assert (kept.store.stats().entries, kept.store.stats().vectors, kept.store.stats().expired) == (0, 0, 1)


async def test_a_flushed_entry_is_never_served_and_dropped_when_asked_for(kept: Kept) -> None:
    await kept.put(entry(1), vector(1), "tag:a")
    await kept.put(entry(2), vector(2), "tag:b")
    await kept.epochs.raise_everywhere("tag:a")
    assert await kept.store.get(SCOPE, key(1), stale_seconds=50) is None
    assert await kept.store.get(SCOPE, key(2)) is not None
    assert (kept.store.stats().entries, kept.store.stats().vectors, kept.store.stats().flushed) == (1, 1, 1)


async def test_a_late_write_under_an_old_epoch_is_not_served(kept: Kept) -> None:
    late = await kept.stamped(entry(1))
    await kept.epochs.raise_everywhere("cache")
    await kept.store.put(late, None)
    assert await kept.store.get(SCOPE, key(1)) is None
    await kept.put(entry(1))
    assert await kept.store.get(SCOPE, key(1)) is not None


async def test_purge_deletes_what_is_flushed_or_expired_and_nothing_else(kept: Kept, clock: Clock) -> None:
    for number in range(300):
        await kept.put(entry(number), vector(number), f"tag:{number % 3}")
    await kept.put(replace(entry("old"), created=BEGAN - 1000), vector(1))
    await kept.epochs.raise_everywhere("tag:0")
    before = kept.store.stats().entry_bytes
    assert await kept.store.purge("tag:0") == 100
    assert await kept.store.purge("tag:0") == 0
    stats = kept.store.stats()
    assert (stats.entries, stats.vectors, stats.flushed, stats.expired) == (200, 200, 100, 1)
    assert stats.entry_bytes < before


async def test_count_tells_how_many_reachable_entries_match(kept: Kept, clock: Clock) -> None:
    for number in range(30):
        await kept.put(entry(number), None, f"tag:{number % 3}")
    await kept.epochs.raise_everywhere("tag:1")
    assert await kept.store.count("tag:0") == 10
    assert await kept.store.count("cache") == 20
    clock.now += 60
    assert await kept.store.count("cache") == 0
    assert kept.store.stats().entries == 30


@pytest.mark.parametrize(
    "long_work", [pytest.param(lambda s: s.purge("cache"), id="purge"), pytest.param(lambda s: s.count("cache"), id="count")]
)
async def test_long_work_gives_way_to_the_loop(kept: Kept, long_work: Callable[[EntryStore], Awaitable[int]]) -> None:
    for number in range(6000):
        await kept.put(entry(number), None)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await long_work(kept.store)
    beside.cancel()
    assert turns >= 3


async def test_entries_may_come_and_go_while_a_purge_runs(kept: Kept) -> None:
    for number in range(3000):
        await kept.put(entry(number), vector(number), "tag:a")
    await kept.epochs.raise_everywhere("tag:a")
    purging = asyncio.create_task(kept.store.purge("tag:a"))
    for number in range(3000, 3500):
        await kept.put(entry(number), vector(number), "tag:b")
        await kept.store.delete(key(number - 2000))
        await asyncio.sleep(0)
    await purging
    assert kept.store.stats().entries == kept.store.stats().vectors == 500
    assert all([await kept.store.get(SCOPE, key(number)) is not None for number in range(3000, 3500)])


async def test_an_empty_answer_and_a_large_one_come_back(kept: Kept) -> None:
    for answer in (b"", b"x" * (CAP // 17), b"y" * 20_000):
        await kept.put(entry(1, answer=answer), None)
        found = await kept.store.get(SCOPE, key(1))
        assert found is not None
        assert found.answer == answer
