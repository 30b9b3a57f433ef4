"""Whatever is asked in whatever order, the feature cache answers what the feature server alone would answer."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sidecar.features_upstream import FeatureUpstream, body

from inference_cache_contract.keyspace import Keyspace
from inference_cache_contract.spec_features import Features, ViewTtl
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.features.cache import FeatureCache
from inference_cache_sidecar.features.cells import CellFormat
from inference_cache_sidecar.features.entities import FeatureKeys
from inference_cache_sidecar.features.kept import KeptCells
from inference_cache_sidecar.features.outcome import Merged, Unplaced
from inference_cache_sidecar.features.request import parse
from inference_cache_sidecar.features.store import MemoryCells
from inference_cache_sidecar.shared.sealing import Sealer

NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class Get:
    body: bytes
    tenant: bytes


@dataclass(frozen=True)
class Change:
    """An entity changes, and is dropped by `dropped`: the same value, as text or number."""

    join_key: str
    value: int
    as_text: bool


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Question:
    """All of a request but its rows."""

    features: tuple[str, ...]
    join_keys: tuple[str, ...]
    texts: bool
    full: bool

    def get(self, rows: list[tuple[int, int]], tenant: bytes) -> Get:
        by_key = dict(zip(("user_id", "item_id"), zip(*rows, strict=True), strict=True))
        columns = {key: [str(value) if self.texts else value for value in by_key[key]] for key in self.join_keys}
        return Get(body(self.features, columns, **({"full_feature_names": True} if self.full else {})), tenant)


REFERENCES = st.sampled_from([f"{view}:{name}" for view in ("users", "items", "visits") for name in NAMES])
QUESTIONS = st.builds(
    Question,
    # Names of different views that are equal would clash, but for full names.
    st.lists(REFERENCES, min_size=1, max_size=5, unique_by=lambda reference: reference.partition(":")[2]).map(tuple),
    st.permutations(("user_id", "item_id")).map(tuple),
    st.booleans(),
    st.booleans(),
)
VALUES = st.integers(0, 3)
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=10)
CHANGES = st.builds(Change, st.sampled_from(("user_id", "item_id")), VALUES, st.booleans())
WAITS = st.builds(Wait, st.sampled_from((1.0, 20.0, 400.0)))


@st.composite
def plays(draw: st.DrawFn) -> list[Get | Change | Wait]:
    """Few questions, so that most steps ask again what was asked of other rows."""
    asked = draw(st.lists(QUESTIONS, min_size=1, max_size=3))
    tenants = st.sampled_from((*[b"one"] * 9, b"other"))
    gets = st.builds(lambda question, rows, tenant: question.get(rows, tenant), st.sampled_from(asked), ROWS, tenants)
    steps = st.integers(0, 11).flatmap(lambda chosen: CHANGES if chosen == 1 else WAITS if chosen == 2 else gets)
    return draw(st.lists(steps, min_size=6, max_size=30))


@dataclass(frozen=True)
class World:
    """What two replicas share, and what each has."""

    max_bytes: int
    near: bool
    sealer: Sealer | None
    some_uncached: bool


WORLDS = st.builds(World, st.sampled_from((2**20, 3000)), st.booleans(), st.sampled_from((None, Sealer([b"k" * 32]))), st.booleans())


async def play(steps: list[Any], world: World) -> None:
    seconds = [1_800_000_000.0]

    def clock() -> float:
        return seconds[0]

    spec = Features("http://feast", 300.0, 10.0, (ViewTtl("items", 15.0), ViewTtl("visits", 0.0)) if world.some_uncached else ())
    upstream, epochs, store = FeatureUpstream(), MemoryEpochs(clock=clock), MemoryCells(world.max_bytes, clock)
    kept = [KeptCells(store, CellFormat(world.sealer), MemoryCells(world.max_bytes, clock) if world.near else None) for _ in range(2)]
    caches = [FeatureCache(each, epochs, FeatureKeys(Keyspace("test")), spec, clock) for each in kept]
    for number, step in enumerate(steps):
        cache = caches[number % 2]
        if isinstance(step, Wait):
            seconds[0] += step.seconds
        elif isinstance(step, Change):
            upstream.change(step.join_key, step.value)
            await cache.drop_entity(step.join_key, str(step.value) if step.as_text else step.value)
        else:
            request = parse(step.body)
            assert request is not None
            outcome = await cache.answer(request, step.tenant, upstream.ask)
            if isinstance(outcome, Merged):
                assert json.loads(outcome.body) == json.loads(upstream.answer(step.body))
            elif not isinstance(outcome, Unplaced):
                assert upstream.asked[-1] == json.loads(step.body)
    assert caches[0].counts.not_understood == caches[1].counts.not_understood == 0


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(plays(), WORLDS)
def test_any_sequence_of_requests_drops_and_changes_is_answered_as_without_a_cache(steps: list[Any], world: World) -> None:
    asyncio.run(play(steps, world))
