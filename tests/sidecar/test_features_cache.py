import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from tests.sidecar.features_upstream import FeatureUpstream, body

from inference_cache_contract.epochs import CACHE, Stamp
from inference_cache_contract.keyspace import Keyspace
from inference_cache_contract.spec_features import Features, ViewTtl
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.errors import StoreUnavailable, UpstreamFault
from inference_cache_sidecar.features.cache import THREAD_BYTES, FeatureCache
from inference_cache_sidecar.features.cells import CellFormat
from inference_cache_sidecar.features.entities import FEATURES, FeatureKeys
from inference_cache_sidecar.features.kept import KeptCells
from inference_cache_sidecar.features.outcome import Merged, Passed, Unplaced
from inference_cache_sidecar.features.request import FeatureRequest, parse
from inference_cache_sidecar.features.store import MemoryCells

BEGINNING = 1_800_000_000.0


class Cells(MemoryCells):
    """Counts round trips; fails where it is told to."""

    def __init__(self, clock: Any) -> None:
        super().__init__(2**20, clock)
        self.reads = self.writes = 0
        self.down = False

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.reads += 1
        if self.down:
            raise StoreUnavailable("down")
        return await super().get_many(keys)

    async def set_many(self, values: Iterable[tuple[bytes, bytes, float]]) -> None:
        self.writes += 1
        if self.down:
            raise StoreUnavailable("down")
        await super().set_many(values)


class Bench:
    """A feature cache with a clock that stands."""

    def __init__(self, spec: Features | None = None, epochs: MemoryEpochs | None = None) -> None:
        self.now = BEGINNING
        self.upstream = FeatureUpstream()
        self.epochs = epochs or MemoryEpochs(clock=lambda: self.now)
        self.cells = Cells(lambda: self.now)
        self.spec = spec or Features("http://feast", 300.0, 30.0)
        self.cache = self.replica()

    def replica(self) -> FeatureCache:
        return FeatureCache(KeptCells(self.cells, CellFormat()), self.epochs, FeatureKeys(Keyspace("test")), self.spec, lambda: self.now)

    async def get(self, *features: str, tenant: bytes = b"", fresh: bool = False, **entities: list[Any]) -> Merged | Passed | Unplaced:
        """Asserts that a merged answer is upstream's own."""
        request = asked(*features, **entities)
        outcome = await self.cache.answer(request, tenant, self.upstream.ask, fresh=fresh)
        if isinstance(outcome, Merged):
            assert json.loads(outcome.body) == json.loads(self.upstream.answer(request.body))
        return outcome


def asked(*features: str, **entities: list[Any]) -> FeatureRequest:
    request = parse(body(features, entities))
    assert request is not None
    return request


def found(outcome: Merged | Passed | Unplaced) -> tuple[int, int]:
    assert isinstance(outcome, Merged)
    return outcome.found, outcome.cells


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_was_asked_once_is_answered_without_upstream(bench: Bench) -> None:
    assert await bench.get("users:a", "users:b", user_id=[1, 2]) == Passed(stored=True, cells=4)
    assert found(await bench.get("users:a", "users:b", user_id=[2, 1, 2])) == (6, 6)
    assert len(bench.upstream.asked) == 1
    assert (bench.cells.reads, bench.cells.writes) == (2, 1)


async def test_only_missing_rows_are_asked_once_each(bench: Bench) -> None:
    await bench.get("users:a", "users:b", user_id=[1, 2])
    outcome = await bench.get("users:a", "users:b", user_id=[3, 1, 3, 2])
    assert found(outcome) == (4, 8)
    assert bench.upstream.asked[1] == {"features": ["users:a", "users:b"], "entities": {"user_id": [3]}, "full_feature_names": False}
    assert (bench.cells.reads, bench.cells.writes) == (2, 2)
    assert found(await bench.get("users:a", "users:b", user_id=[3])) == (2, 2)


async def test_only_missing_features_are_asked(bench: Bench) -> None:
    await bench.get("users:a", user_id=[1, 2])
    await bench.get("users:a", "users:b", user_id=[8])
    assert found(await bench.get("users:a", "users:b", user_id=[1, 2, 8])) == (4, 6)
    assert bench.upstream.asked[2] == {"features": ["users:b"], "entities": {"user_id": [1, 2]}, "full_feature_names": False}
    assert found(await bench.get("users:a", "users:b", user_id=[1, 2, 8])) == (6, 6)


async def test_cells_are_shared_by_requests_with_other_names_and_orders(bench: Bench) -> None:
    await bench.get("visits:a", "users:b", user_id=[1], item_id=["x"])
    request = parse(body(["users:b", "visits:a"], {"item_id": ["y"], "user_id": [2]}, full_feature_names=True))
    assert request is not None
    await bench.cache.answer(request, b"", bench.upstream.ask)
    request = parse(body(["users:b", "visits:a"], {"item_id": ["x"], "user_id": [1]}, full_feature_names=True))
    assert request is not None
    outcome = await bench.cache.answer(request, b"", bench.upstream.ask)
    assert found(outcome) == (2, 2)
    assert isinstance(outcome, Merged)
    assert json.loads(outcome.body) == json.loads(bench.upstream.answer(request.body))


async def test_a_text_and_a_number_are_different_rows(bench: Bench) -> None:
    await bench.get("users:a", user_id=[1])
    assert isinstance(await bench.get("users:a", user_id=["1"]), Passed)


async def test_a_kind_of_request_that_upstream_never_answered_is_not_answered_from_cells(bench: Bench) -> None:
    await bench.get("users:a", user_id=[1])
    await bench.get("users:b", user_id=[1])
    assert isinstance(await bench.get("users:a", "users:b", user_id=[1]), Passed)


async def test_tenants_share_nothing(bench: Bench) -> None:
    await bench.get("users:a", user_id=[1], tenant=b"one")
    assert isinstance(await bench.get("users:a", user_id=[1], tenant=b"other"), Passed)
    assert found(await bench.get("users:a", user_id=[1], tenant=b"one")) == (1, 1)


async def test_another_feature_servers_values_are_others(bench: Bench) -> None:
    await bench.get("users:a", user_id=[1])
    bench.spec = Features("http://other", 300.0, 30.0)
    bench.cache = bench.replica()
    assert isinstance(await bench.get("users:a", user_id=[1]), Passed)


async def test_each_view_has_its_own_time() -> None:
    bench = Bench(Features("http://feast", 100.0, 100.0, (ViewTtl("items", 10.0),)))
    await bench.get("users:a", "items:b", user_id=[1], item_id=[1])
    bench.now += 10
    assert found(await bench.get("users:a", "items:b", user_id=[1], item_id=[1])) == (1, 2)
    assert bench.upstream.asked[1]["features"] == ["items:b"]
    bench.now += 90
    assert isinstance(await bench.get("users:a", "items:b", user_id=[1], item_id=[1]), Passed)


async def test_a_view_without_time_is_asked_every_time() -> None:
    bench = Bench(Features("http://feast", 100.0, 100.0, (ViewTtl("items", 0.0),)))
    await bench.get("users:a", "items:b", user_id=[1], item_id=[1])
    for _ in range(2):
        assert found(await bench.get("users:a", "items:b", user_id=[1], item_id=[1])) == (1, 2)
    assert await bench.get("items:b", item_id=[1]) == Unplaced("ttl")


async def test_that_there_is_no_value_is_repeated_for_a_shorter_time(bench: Bench) -> None:
    users = [user for user in range(30) if b"NOT_FOUND" in bench.upstream.answer(asked("users:a", user_id=[user]).body)][:1]
    there = [user for user in range(30) if b"NOT_FOUND" not in bench.upstream.answer(asked("users:a", user_id=[user]).body)][:1]
    await bench.get("users:a", user_id=users + there)
    bench.now += 29
    assert found(await bench.get("users:a", user_id=users + there)) == (2, 2)
    bench.now += 1
    assert found(await bench.get("users:a", user_id=users + there)) == (1, 2)
    assert bench.upstream.asked[-1]["entities"] == {"user_id": users}


async def test_a_views_features_of_a_row_end_together(bench: Bench) -> None:
    """Else a feature asked later would lengthen the life of those beside it."""
    bench.spec = Features("http://feast", 100.0, 100.0)
    bench.cache = bench.replica()
    await bench.get("users:a", user_id=[1])
    await bench.get("users:a", "users:b", user_id=[9])
    bench.now += 60
    assert found(await bench.get("users:a", "users:b", user_id=[1])) == (1, 2)
    bench.now += 39
    assert found(await bench.get("users:a", "users:b", user_id=[1])) == (2, 2)
    bench.now += 1
    assert isinstance(await bench.get("users:a", "users:b", user_id=[1]), Passed)


async def test_a_fresh_answer_comes_from_upstream_and_is_stored(bench: Bench) -> None:
    await bench.get("users:a", user_id=[1])
    bench.upstream.change("user_id", 1)
    assert await bench.get("users:a", user_id=[1], fresh=True) == Passed(stored=True, cells=1)
    assert found(await bench.get("users:a", user_id=[1])) == (1, 1)


@pytest.mark.parametrize("value", [7, "7", "07", " 7"])
@pytest.mark.parametrize("stored", [7, "7"])
async def test_a_dropped_entity_is_asked_anew_in_every_row_it_is_part_of(bench: Bench, value: int | str, stored: int | str) -> None:
    await bench.get("users:a", user_id=[stored])
    await bench.get("visits:a", user_id=[stored, stored], item_id=["x", "y"])
    await bench.get("visits:a", user_id=[9 if isinstance(stored, int) else "9"], item_id=["x"])
    bench.upstream.change("user_id", 7)
    await bench.replica().drop_entity("user_id", value)
    assert isinstance(await bench.get("users:a", user_id=[stored]), Passed)
    other = 9 if isinstance(stored, int) else "9"
    assert found(await bench.get("visits:a", user_id=[stored, stored, other], item_id=["x", "y", "x"])) == (1, 3)


async def test_another_join_key_of_the_same_value_is_not_dropped(bench: Bench) -> None:
    await bench.get("users:a", user_id=[7])
    await bench.cache.drop_entity("item_id", 7)
    assert found(await bench.get("users:a", user_id=[7])) == (1, 1)


@pytest.mark.parametrize("epoch", [CACHE, FEATURES])
async def test_everything_can_be_dropped(bench: Bench, epoch: str) -> None:
    await bench.get("users:a", user_id=[1, 2])
    await (bench.cache.drop_all() if epoch == FEATURES else bench.epochs.raise_everywhere(epoch))
    assert isinstance(await bench.get("users:a", user_id=[1, 2]), Passed)


@pytest.mark.parametrize("warm", [False, True], ids=["whole", "partial"])
async def test_an_answer_begun_before_a_drop_is_not_kept_after_it(bench: Bench, warm: bool) -> None:
    if warm:
        await bench.get("users:a", user_id=[1])
    asking, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes) -> bytes:
        answer = bench.upstream.answer(request)
        asking.set()
        await go_on.wait()
        return answer

    late = asyncio.create_task(bench.cache.answer(asked("users:a", user_id=[1, 7]), b"", slow))
    await asking.wait()
    bench.upstream.change("user_id", 7)
    await bench.cache.drop_entity("user_id", 7)
    go_on.set()
    await late
    assert found(await bench.get("users:a", user_id=[1, 7])) == (1, 2)


async def test_nothing_is_served_while_the_epochs_are_not_known() -> None:
    class Unconfirmed(MemoryEpochs):
        known = True

        async def stamps(self, names: Sequence[str]) -> tuple[Stamp, ...]:
            return await super().stamps(names) if self.known else None  # type: ignore[return-value]

    epochs = Unconfirmed()
    bench = Bench(epochs=epochs)
    await bench.get("users:a", user_id=[1])
    epochs.known = False
    assert await bench.get("users:a", user_id=[1]) == Unplaced("epochs")
    assert (bench.cells.reads, bench.cache.counts.bypassed) == (1, 1)


async def test_a_store_that_fails_is_a_miss_and_is_not_written_to(bench: Bench) -> None:
    await bench.get("users:a", user_id=[1])
    bench.cells.down = True
    assert await bench.get("users:a", user_id=[1]) == Passed(stored=False, cells=1)
    assert (bench.cells.reads, bench.cells.writes, bench.cache.counts.store_failures) == (2, 1, 1)
    bench.cells.down = False
    assert found(await bench.get("users:a", user_id=[1])) == (1, 1)


async def test_a_store_that_fails_to_write_does_no_harm(bench: Bench) -> None:
    await bench.get("users:a", user_id=[1])

    async def ask(request: bytes) -> bytes | None:
        bench.cells.down = True
        return await bench.upstream.ask(request)

    outcome = await bench.cache.answer(asked("users:a", user_id=[1, 2]), b"", ask)
    assert isinstance(outcome, Merged)
    assert (outcome.found, outcome.stored) == (1, False)


async def test_where_upstream_refuses_a_part_it_is_asked_for_all(bench: Bench) -> None:
    await bench.get("users:a", user_id=[1])

    async def ask(request: bytes) -> bytes | None:
        return await bench.upstream.ask(request) if b"[1, 2]" in request else None

    assert await bench.cache.answer(asked("users:a", user_id=[1, 2]), b"", ask) == Passed(stored=True, cells=2)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="refused"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"results": [], "metadata": {"feature_names": []}}', id="no-columns"),
        pytest.param(FeatureUpstream().answer(body(["users:b"], {"user_id": [1]})), id="other-features"),
        pytest.param(FeatureUpstream().answer(body(["users:a"], {"user_id": [1, 2]})), id="more-rows"),
        pytest.param(FeatureUpstream().answer(body(["users:a"], {"user_id": [1], "item_id": [1]})), id="an-unknown-join-key"),
    ],
)
async def test_an_answer_that_is_not_understood_is_passed_on_and_not_kept(bench: Bench, answer: bytes | None) -> None:
    async def ask(_request: bytes) -> bytes | None:
        return answer

    for _ in range(2):
        assert await bench.cache.answer(asked("users:a", user_id=[1]), b"", ask) == Passed(stored=False, cells=1)
    assert bench.cache.counts.not_understood == (0 if answer is None else 2)
    assert bench.cells.writes == 0


async def test_what_upstream_fails_with_reaches_the_caller(bench: Bench) -> None:
    async def ask(_request: bytes) -> bytes | None:
        raise UpstreamFault(504, "late")

    with pytest.raises(UpstreamFault):
        await bench.cache.answer(asked("users:a", user_id=[1]), b"", ask)
    assert (bench.cache.counts.upstream_calls, bench.cache.counts.upstream_failures) == (1, 1)


async def test_a_long_answer_is_kept_too(bench: Bench) -> None:
    users = list(range(1500))
    request = asked("users:a", user_id=users)
    assert len(bench.upstream.answer(request.body)) > THREAD_BYTES
    await bench.get("users:a", user_id=users)
    assert found(await bench.get("users:a", user_id=users)) == (1500, 1500)


async def test_outcomes_are_counted(bench: Bench) -> None:
    await bench.get("users:a", user_id=[1, 2])
    await bench.get("users:a", user_id=[1, 2])
    await bench.get("users:a", user_id=[1, 3])
    await bench.cache.drop_entities([("user_id", 1), ("user_id", "1"), ("user_id", 2)])
    counts = bench.cache.counts
    assert (counts.hits, counts.partial, counts.misses) == (1, 1, 1)
    assert (counts.cells_found, counts.cells_fetched, counts.upstream_calls) == (3, 3, 2)
    assert counts.dropped_entities == 2
