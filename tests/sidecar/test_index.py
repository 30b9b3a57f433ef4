"""One suite for every implementation of `VectorIndex`, and for every way `ScopedIndex` has of keeping a scope."""

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inference_cache_sidecar.index import building
from inference_cache_sidecar.index import region as regions
from inference_cache_sidecar.index.partition import Partition
from inference_cache_sidecar.index.protocol import Vector, VectorIndex
from inference_cache_sidecar.index.scoped import ScopedIndex

pytestmark = pytest.mark.slow

DIMENSIONS = 32
TOLERANCE = 5e-3
REGIMES = {
    "slab": (10**9, 10**9),
    "flat": (4, 10**9),
    "ivf": (4, 64),
}
Oracle = dict[bytes, dict[bytes, Vector]]


def key(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def made_up(count: int, seed: int = 0, dimensions: int = DIMENSIONS) -> Vector:
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    unit: Vector = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def near(vector: Vector, similarity: float, seed: int) -> Vector:
    noise = made_up(1, seed + 1000, len(vector))[0]
    across = noise - (noise @ vector) * vector
    across /= np.linalg.norm(across)
    query: Vector = np.float32(similarity) * vector + np.float32(np.sqrt(1 - similarity**2)) * across
    return query


class Paced(threading.Event):
    """Is a build's `stopped`, at which it looks before each batch: there it rests until the test takes the next `step`."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = threading.Semaphore(0)
        self._rests = threading.Event()
        self._over = False
        self.batches = 0

    def build(self, work: building.Work) -> Partition:
        self._over = False
        try:
            return building.build(replace(work, stopped=self))
        finally:
            self._over = True
            self._rests.set()

    def is_set(self) -> bool:
        self._rests.set()
        if not self._steps.acquire(timeout=60):
            raise TimeoutError("the test came no further while a partition was made")
        self.batches += 1
        return False

    def step(self) -> None:
        """Let it go on when it rests, if it is not over."""
        assert self._rests.wait(60)
        if not self._over:
            self._rests.clear()
            self._steps.release()

    def let_go(self) -> None:
        self._steps.release(100_000)


def settle(index: VectorIndex, *scopes: bytes) -> None:
    """Wait until no partition is being made, and have it swapped in."""
    deadline = time.monotonic() + 60
    while getattr(index, "building", False):
        assert time.monotonic() < deadline, "a partition was not ready in time"
        for scope in scopes:
            index.search(scope, np.ones(DIMENSIONS, dtype=np.float32), 1)
        time.sleep(0.001)


def agree(index: VectorIndex, scope: bytes, kept: dict[bytes, Vector], query: Vector, limit: int = 4) -> None:
    """The nearest similarities are the oracle's, the digests are those of kept vectors, nearest first, none twice."""
    found = index.search(scope, query, limit)
    right = sorted((float(vector @ query) for vector in kept.values()), reverse=True)[:limit]
    assert [neighbour.similarity for neighbour in found] == pytest.approx(right, abs=TOLERANCE)
    assert len({neighbour.digest for neighbour in found}) == len(found)
    for neighbour in found:
        assert neighbour.similarity == pytest.approx(float(kept[neighbour.digest] @ query), abs=TOLERANCE)


@pytest.fixture(params=[pytest.param(sizes, id=name) for name, sizes in REGIMES.items()])
async def index(request: pytest.FixtureRequest) -> AsyncIterator[VectorIndex]:
    region_rows, flat_limit = request.param
    made = ScopedIndex(DIMENSIONS, region_rows=region_rows, flat_limit=flat_limit)
    yield made
    await made.close()


async def test_the_nearest_of_a_scope_are_those_of_a_full_comparison(index: VectorIndex) -> None:
    kept = {key(number): vector for number, vector in enumerate(made_up(300))}
    for digest, vector in kept.items():
        index.add(key("scope"), digest, vector)
    settle(index, key("scope"))
    for number, vector in enumerate(list(kept.values())[::10]):
        agree(index, key("scope"), kept, near(vector, 0.93, number), limit=1)
    assert len(index) == 300


async def test_a_vector_finds_itself_with_similarity_one(index: VectorIndex) -> None:
    vectors = made_up(100)
    for number, vector in enumerate(vectors):
        index.add(key("scope"), key(number), vector)
    for number, vector in enumerate(vectors):
        best = index.search(key("scope"), vector, 1)[0]
        assert best.digest == key(number)
        assert 1 - TOLERANCE < best.similarity <= 1.0


async def test_another_scope_is_never_searched(index: VectorIndex) -> None:
    vector = made_up(1)[0]
    for number in range(20):
        index.add(key("mine"), key(("mine", number)), -vector)
        index.add(key("theirs"), key(("theirs", number)), vector)
    found = index.search(key("mine"), vector, 50)
    assert {neighbour.digest for neighbour in found} == {key(("mine", number)) for number in range(20)}
    assert index.search(key("nobody's"), vector, 5) == []


async def test_what_was_removed_is_not_found(index: VectorIndex) -> None:
    kept = {key(number): vector for number, vector in enumerate(made_up(200))}
    for digest, vector in kept.items():
        index.add(key("scope"), digest, vector)
    settle(index, key("scope"))
    for number in range(0, 200, 2):
        assert index.remove(key("scope"), key(number))
        assert not index.remove(key("scope"), key(number))
        gone = kept.pop(key(number))
        assert key(number) not in {neighbour.digest for neighbour in index.search(key("scope"), gone, 4)}
    settle(index, key("scope"))
    for number, vector in enumerate(kept.values()):
        agree(index, key("scope"), kept, near(vector, 0.95, number), limit=1)
    assert len(index) == 100


async def test_removing_what_is_elsewhere_removes_nothing(index: VectorIndex) -> None:
    vector = made_up(1)[0]
    index.add(key("scope"), key(1), vector)
    assert not index.remove(key("another"), key(1))
    assert not index.remove(key("scope"), key(2))
    assert [neighbour.digest for neighbour in index.search(key("scope"), vector, 1)] == [key(1)]


async def test_an_equal_digest_replaces_its_vector(index: VectorIndex) -> None:
    vectors = made_up(200)
    for number, vector in enumerate(vectors[:100]):
        index.add(key("scope"), key(number), vector)
    settle(index, key("scope"))
    for number, vector in enumerate(vectors[100:]):
        index.add(key("scope"), key(number), vector)
    assert len(index) == 100
    settle(index, key("scope"))
    kept = {key(number): vector for number, vector in enumerate(vectors[100:])}
    for number, vector in enumerate(vectors[100:]):
        agree(index, key("scope"), kept, near(vector, 0.95, number), limit=1)


async def test_emptied_and_filled_again_it_holds_only_the_new(index: VectorIndex) -> None:
    vectors = made_up(200)
    for round_number in range(3):
        for number, vector in enumerate(vectors):
            index.add(key("scope"), key((round_number, number)), vector)
        assert index.search(key("scope"), vectors[5], 1)[0].digest == key((round_number, 5))
        for number in range(200):
            assert index.remove(key("scope"), key((round_number, number)))
        assert len(index) == 0
        assert index.search(key("scope"), vectors[5], 1) == []


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(np.ones(DIMENSIONS - 1, dtype=np.float32), id="too-short"),
        pytest.param(np.ones(DIMENSIONS + 1, dtype=np.float32), id="too-long"),
        pytest.param(np.ones((1, DIMENSIONS), dtype=np.float32), id="a-matrix"),
        pytest.param(np.full(DIMENSIONS, np.nan, dtype=np.float32), id="not-a-number"),
        pytest.param(np.full(DIMENSIONS, np.inf, dtype=np.float32), id="infinite"),
        pytest.param(np.zeros(DIMENSIONS, dtype=np.float32), id="zero"),
    ],
)
async def test_a_vector_that_does_not_fit_is_refused_and_changes_nothing(index: VectorIndex, vector: Vector) -> None:
    index.add(key("scope"), key(1), made_up(1)[0])
    before = index.nbytes
    with pytest.raises(ValueError, match="vector"):
        index.add(key("scope"), key(2), vector)
    with pytest.raises(ValueError, match="vector"):
        index.search(key("scope"), vector, 1)
    assert (len(index), index.nbytes) == (1, before)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: np.eye(DIMENSIONS, dtype=np.float32), id="one-hot"),
        pytest.param(lambda: made_up(200)[:, ::-1], id="not-contiguous"),
        pytest.param(lambda: np.abs(made_up(200)), id="all-in-one-orthant"),
        pytest.param(lambda: np.repeat(made_up(1), 200, axis=0), id="all-equal"),
    ],
)
async def test_odd_vectors_are_found_as_well(index: VectorIndex, make: Callable[[], Vector]) -> None:
    kept = {key(number): vector for number, vector in enumerate(make())}
    for digest, vector in kept.items():
        index.add(key("scope"), digest, vector)
    settle(index, key("scope"))
    for vector in kept.values():
        agree(index, key("scope"), kept, vector, limit=1)


async def test_searching_goes_on_while_a_partition_is_made(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    index, paced, vectors = ScopedIndex(DIMENSIONS, flat_limit=2000), Paced(), made_up(6000)
    monkeypatch.setattr(regions, "build", paced.build)
    try:
        for number, vector in enumerate(vectors):
            index.add(key("scope"), key(number), vector)
            if number % 50 == 0:
                if index.building:
                    paced.step()
                for wanted in (number, number // 2):
                    assert index.search(key("scope"), vectors[wanted], 1)[0].digest == key(wanted)
        assert paced.batches > 10, "it was searched after each"
    finally:
        paced.let_go()
    settle(index, key("scope"))
    for number in range(0, 6000, 50):
        assert index.search(key("scope"), vectors[number], 1)[0].digest == key(number)
    assert "could not be built" not in caplog.text
    await index.close()


async def test_closing_gives_up_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, outcomes = threading.Event(), list[object]()

    def build(work: building.Work) -> None:
        begun.set()
        assert work.stopped.wait(60)
        with pytest.raises(building.StoppedError) as given_up:
            building.build(work)
        outcomes.append(given_up.value)
        raise given_up.value

    monkeypatch.setattr(regions, "build", build)
    index = ScopedIndex(DIMENSIONS, flat_limit=2000)
    for number, vector in enumerate(made_up(2000)):
        index.add(key("scope"), key(number), vector)
    assert await asyncio.to_thread(begun.wait, 60)
    async with asyncio.timeout(60):
        await index.close()
    assert len(outcomes) == 1


def test_a_hundred_thousand_scopes_of_one_vector_take_little_beside_their_vectors() -> None:
    index = ScopedIndex(DIMENSIONS)
    empty = index.nbytes
    vector = made_up(1)[0]
    for number in range(20_000):
        index.add(number.to_bytes(32, "big"), number.to_bytes(32, "little"), vector)
    keys = 64
    assert (index.nbytes - empty) / 20_000 < index.vector_bytes + keys + 32
    assert index.search((777).to_bytes(32, "big"), vector, 3)[0].digest == (777).to_bytes(32, "little")


class AddRemoveSearch(RuleBasedStateMachine):
    """Any order of adding, replacing and removing, in scopes small and large, agrees with a dict of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.index = ScopedIndex(DIMENSIONS, region_rows=8, flat_limit=24)
        self.kept: Oracle = {key("a"): {}, key("b"): {}}
        self.vectors = made_up(400, seed=3)
        self.drawn = 0

    @rule(scope=st.sampled_from(["a", "b"]), count=st.integers(1, 20), first=st.integers(0, 60))
    def add(self, scope: str, count: int, first: int) -> None:
        for number in range(first, first + count):
            vector = self.vectors[self.drawn % len(self.vectors)]
            self.drawn += 1
            self.index.add(key(scope), key((scope, number)), vector)
            self.kept[key(scope)][key((scope, number))] = vector

    @rule(scope=st.sampled_from(["a", "b"]), count=st.integers(1, 30), first=st.integers(0, 60))
    def remove(self, scope: str, count: int, first: int) -> None:
        for number in range(first, first + count):
            held = self.kept[key(scope)].pop(key((scope, number)), None)
            assert self.index.remove(key(scope), key((scope, number))) is (held is not None)

    @rule()
    def wait_for_the_partition(self) -> None:
        settle(self.index, *self.kept)

    @rule(scope=st.sampled_from(["a", "b"]), number=st.integers(0, 399), limit=st.integers(0, 5))
    def search(self, scope: str, number: int, limit: int) -> None:
        agree(self.index, key(scope), self.kept[key(scope)], self.vectors[number], limit)

    @invariant()
    def it_holds_as_many(self) -> None:
        assert len(self.index) == sum(len(vectors) for vectors in self.kept.values())
        assert self.index._region_bytes == sum(region.nbytes + 256 for region in self.index._regions.values())

    def teardown(self) -> None:
        for region in self.index._regions.values():
            region.stop()
        self.index._executor.shutdown(cancel_futures=True)


TestAddRemoveSearch = AddRemoveSearch.TestCase
TestAddRemoveSearch.settings = settings(max_examples=40, stateful_step_count=30)
