from collections.abc import Iterable, Sequence

import pytest

from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.features.cells import Cell, CellFormat, cells
from inference_cache_sidecar.features.kept import NEAR_SECONDS, KeptCells
from inference_cache_sidecar.features.store import MemoryCells

NOW = 1_800_000_000.0
STAMP = b"f1 1 2 3"
FORMAT = CellFormat()


class Shared(MemoryCells):
    def __init__(self, world: "World") -> None:
        super().__init__(10_000, lambda: world.now)
        self.asked: list[list[bytes]] = []
        self.down = False

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked.append(list(keys))
        if self.down:
            raise StoreUnavailable("down")
        return await super().get_many(keys)

    async def set_many(self, values: Iterable[tuple[bytes, bytes, float]]) -> None:
        if self.down:
            raise StoreUnavailable("down")
        await super().set_many(values)


class World:
    """Two replicas over one store."""

    def __init__(self) -> None:
        self.now = NOW
        self.shared = Shared(self)
        self.one, self.other = (KeptCells(self.shared, FORMAT, MemoryCells(10_000, lambda: self.now)) for _ in range(2))

    async def get(self, kept: KeptCells, *keys: bytes, stamp: bytes = STAMP) -> list[bytes | None]:
        found, _ = await kept.get(keys, [stamp] * len(keys), int(self.now * 1000))
        return [None if fields is None else cells(fields)["f:a"].value for fields in found]

    def value(self, key: bytes, content: bytes, seconds: float = 500.0, stamp: bytes = STAMP) -> tuple[bytes, bytes, float]:
        cell = Cell(content, b'"PRESENT"', b'""')
        return key, FORMAT.write(key, stamp, int((self.now + seconds) * 1000), {"f:a": cell}), seconds


@pytest.fixture
def world() -> World:
    return World()


async def test_what_passed_lately_costs_no_round_trip(world: World) -> None:
    await world.shared.set_many([world.value(b"a", b"1"), world.value(b"b", b"2")])
    assert await world.get(world.one, b"a") == [b"1"]
    assert await world.get(world.one, b"a", b"b", b"x") == [b"1", b"2", None]
    assert await world.get(world.one, b"b", b"a") == [b"2", b"1"]
    assert world.shared.asked == [[b"a"], [b"b", b"x"]]
    world.now += NEAR_SECONDS
    assert await world.get(world.one, b"a") == [b"1"]
    assert world.shared.asked[2:] == [[b"a"]]


async def test_what_one_replica_sets_another_gets(world: World) -> None:
    assert await world.one.set([world.value(b"a", b"1")])
    assert await world.get(world.other, b"a") == [b"1"]
    assert await world.get(world.one, b"a") == [b"1"]
    assert world.shared.asked == [[b"a"]]


async def test_a_copy_ends_when_its_value_does(world: World) -> None:
    await world.one.set([world.value(b"a", b"1", 5.0)])
    assert await world.get(world.other, b"a") == [b"1"]
    world.now += 5
    assert await world.get(world.one, b"a") == await world.get(world.other, b"a") == [None]


async def test_a_flushed_copy_does_not_hide_what_another_replica_stored_since(world: World) -> None:
    await world.one.set([world.value(b"a", b"1")])
    flushed = b"f1 1 2 4"
    assert await world.get(world.one, b"a", stamp=flushed) == [None]
    await world.other.set([world.value(b"a", b"2", stamp=flushed)])
    assert await world.get(world.one, b"a", stamp=flushed) == [b"2"]


async def test_a_store_that_fails_leaves_what_is_near(world: World) -> None:
    await world.one.set([world.value(b"a", b"1")])
    world.shared.down = True
    found, there = await world.one.get([b"a", b"b"], [STAMP, STAMP], int(NOW * 1000))
    assert (found[0] is None, found[1], there) == (False, None, False)
    assert not await world.one.set([world.value(b"b", b"2")])
    assert await world.get(world.one, b"b") == [None]
    assert world.one.counts.store_failures == 3


async def test_without_a_near_copy_every_value_comes_from_the_store(world: World) -> None:
    plain = KeptCells(world.shared, FORMAT)
    await plain.set([world.value(b"a", b"1")])
    assert [await world.get(plain, b"a") for _ in range(2)] == [[b"1"]] * 2
    assert len(world.shared.asked) == 2
