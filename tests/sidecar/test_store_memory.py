"""What the memory store alone promises: the cap, and which entries go for it."""

import hashlib
import itertools
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.index.scoped import ScopedIndex
from inference_cache_sidecar.store.memory import MemoryStore

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DIMENSIONS = 16
CAP = 4 * 2**20
NOW = 1_800_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def key(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def entry(name: object, *, size: int = 2000, seconds: float = 1.0) -> Entry:
    return Entry(
        scope=key("scope"),
        digest=key(name),
        endpoint=Endpoint.CHAT,
        prompt="",
        answer=b"x" * size,
        answer_id="",
        headers=(),
        stamps=(("cache", 0),),
        created=NOW,
        ttl_seconds=60.0,
        prompt_tokens=10,
        completion_tokens=20,
        upstream_seconds=seconds,
        semantic=True,
    )


@pytest.fixture
async def index() -> AsyncIterator[ScopedIndex]:
    made = ScopedIndex(DIMENSIONS, region_rows=64, flat_limit=500)
    yield made
    await made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(index: ScopedIndex, clock: Clock) -> MemoryStore:
    return MemoryStore(CAP, MemoryEpochs(), index, clock=clock)


async def flood(store: MemoryStore, entries: int, **like: float) -> None:
    for number in range(entries):
        await store.put(entry(("flood", number), **like), None)


async def test_entries_that_cost_more_outlive_cheap_ones(store: MemoryStore) -> None:
    for number in range(50):
        await store.put(entry(("dear", number), seconds=30.0), None)
    await flood(store, 5000, seconds=1.0)
    assert store.stats().evicted > 2000
    assert all([await store.get(b"", key(("dear", number))) for number in range(50)])


async def test_entries_in_use_outlive_unused_ones(store: MemoryStore) -> None:
    for number in range(50):
        await store.put(entry(("used", number)), None)
    for number in range(6000):
        await store.put(entry(("flood", number)), None)
        await store.get(b"", key(("used", number % 50)))
    assert store.stats().evicted > 2000
    assert all([await store.get(b"", key(("used", number))) for number in range(50)])


async def test_a_peek_is_no_use(store: MemoryStore) -> None:
    await store.put(entry("peeked"), None)
    await store.put(entry("used"), None)
    for number in range(6000):
        await store.put(entry(("flood", number)), None)
        await store.peek(b"", key("peeked"))
        await store.get(b"", key("used"))
    assert await store.get(b"", key("peeked")) is None
    assert await store.get(b"", key("used")) is not None


async def test_an_entry_no_longer_used_goes_in_the_end_however_dear(store: MemoryStore) -> None:
    await store.put(entry("dear", seconds=5.0), None)
    await flood(store, 3000)
    assert await store.peek(b"", key("dear")) is not None
    for number in range(20_000):
        await store.put(entry(number), None)
    assert await store.peek(b"", key("dear")) is None


async def test_of_equal_cost_the_larger_goes_first(store: MemoryStore) -> None:
    for number in range(20):
        await store.put(entry(("small", number), size=1000), None)
        await store.put(entry(("large", number), size=7000), None)
    await flood(store, 1800, size=3000)
    left = {kind: sum([await store.peek(b"", key((kind, number))) is not None for number in range(20)]) for kind in ("small", "large")}
    assert left["small"] == 20
    assert left["large"] < 5


async def test_newcomers_worth_less_than_all_push_nothing_out(store: MemoryStore) -> None:
    await flood(store, 1600, seconds=100.0)
    assert store.stats().evicted == 0
    for number in range(1000):
        await store.put(entry(("cheap", number), seconds=0.01), None)
    stats = store.stats()
    assert stats.refused + stats.evicted > 500
    assert stats.refused > 0
    assert all([await store.peek(b"", key(("flood", number))) for number in range(1600)])


async def test_expired_entries_go_before_any_live_one(store: MemoryStore, clock: Clock) -> None:
    for number in range(500):
        await store.put(replace(entry(("short", number), seconds=1000.0), ttl_seconds=1.0), None)
    for number in range(900):
        await store.put(entry(("live", number), seconds=0.01), None)
    clock.now += 2
    for number in range(500):
        await store.put(entry(("new", number), seconds=0.01), None)
    assert store.stats().expired > 100
    assert store.stats().evicted == 0
    assert all([await store.peek(b"", key(("live", number))) for number in range(900)])


async def test_vectors_go_with_their_entries(store: MemoryStore, index: ScopedIndex) -> None:
    vectors = np.random.default_rng(1).standard_normal((6000, DIMENSIONS)).astype(np.float32)
    for number, vector in enumerate(vectors):
        await store.put(entry(number), vector)
    stats = store.stats()
    assert stats.evicted > 3000
    assert len(index) == stats.vectors == stats.entries
    for vector in vectors[:200]:
        for neighbour in await store.neighbours(key("scope"), vector, 4):
            assert await store.peek(b"", neighbour.digest) is not None


@pytest.mark.parametrize("cap", [pytest.param(2**20 * mib, id=f"{mib}MiB") for mib in (2, 8)])
async def test_the_cap_is_never_passed_whatever_comes(index: ScopedIndex, clock: Clock, cap: int) -> None:
    store = MemoryStore(cap, MemoryEpochs(), index, clock=clock)
    dice = random.Random(cap)
    vectors = np.random.default_rng(2).standard_normal((50, DIMENSIONS)).astype(np.float32)
    sizes = itertools.cycle([10, 500, 2000, 2000, 9000, cap // 40, cap // 20, cap // 2])
    for number, size in zip(range(2500), sizes, strict=False):
        made = entry(dice.randrange(6000), size=dice.randint(0, size), seconds=dice.random() * 5)
        await store.put(replace(made, scope=key(dice.randrange(3)), created=clock.now), vectors[number % 50] if number % 4 else None)
        if number % 7 == 0:
            await store.delete(key(dice.randrange(6000)))
        if number % 5 == 0:
            await store.get(b"", key(dice.randrange(6000)))
        clock.now += dice.choice([0.0, 0.0, 0.1])
        stats = store.stats()
        assert stats.used_bytes <= cap
        assert stats.entry_bytes <= stats.used_bytes
    assert len(index) == stats.vectors
    assert min(stats.evicted, stats.refused, stats.expired) > 50
    found = [await store.get(b"", key(number)) for number in range(6000)]
    assert sum(one is not None for one in found) > 0


async def test_a_cap_too_small_for_anything_refuses_and_goes_on(index: ScopedIndex) -> None:
    store = MemoryStore(1000, MemoryEpochs(), index)
    assert not await store.put(entry(1, size=10), None)
    assert await store.get(b"", key(1)) is None


@pytest.mark.parametrize("scopes", [pytest.param(scopes, id=f"scopes-{scopes}") for scopes in ("own", "one")])
def test_resident_memory_stays_under_the_cap_and_most_of_it_is_entries(scopes: str) -> None:
    """The benchmark's short form, in a process of its own so that nothing else is resident in it."""
    paths = os.pathsep.join(str(ROOT / part) for part in ("contract", "sidecar"))
    command = [sys.executable, "bench/store_memory.py", "--entries", "20000", "--cap", "16Mi", "--scopes", scopes, "--index", ""]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=True, timeout=120)
    words = run.stdout.replace(",", " ").split()
    ratio = float(words[words.index("ratio") + 3])
    share = float(words[words.index("share") + 5])
    assert 0.5 < ratio <= 1.1
    assert share >= 0.6


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(entry(1, size=CAP), id="larger-than-the-cap"),
        pytest.param(entry(1, size=CAP // 8), id="an-eighth-of-the-cap"),
        pytest.param(replace(entry(1), digest=b"short", scope=b"short"), id="keys-of-wrong-size"),
        pytest.param(replace(entry(1), prompt_tokens=-1), id="negative-tokens"),
    ],
)
async def test_what_cannot_be_kept_is_refused_and_evicts_nothing(store: MemoryStore, odd: Entry) -> None:
    await store.put(entry("kept"), None)
    assert not await store.put(odd, None)
    assert (store.stats().entries, store.stats().refused, store.stats().evicted) == (1, 1, 0)
