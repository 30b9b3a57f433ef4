"""Epochs of many events are raised together."""

import asyncio
from collections.abc import Sequence

import pytest

from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.events.raising import AT_ONCE, BatchedRaises


class Store:
    """Raises names when it is let; refuses a batch with one of `refused`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.refused: set[str] = set()
        self.by_others: set[str] = set()

    async def raise_all(self, names: Sequence[str]) -> Sequence[str]:
        self.batches.append(list(names))
        await self.open.wait()
        if self.refused & set(names):
            raise StoreUnavailable("the shared store is not there")
        return [name for name in names if name not in self.by_others]


async def turns(count: int = 5) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_names_that_come_while_a_batch_is_raised_go_into_the_next_one_together() -> None:
    store = Store()
    raises = BatchedRaises(store.raise_all)
    store.open.clear()
    waiting = [asyncio.create_task(raises.raised([name])) for name in "abcdefb"]
    await turns()
    assert store.batches == [list("abcdef")]
    waiting += [asyncio.create_task(raises.raised([name])) for name in "bgg"]
    await turns()
    assert not any(task.done() for task in waiting)
    store.open.set()
    await asyncio.gather(*waiting)
    assert store.batches == [list("abcdef"), ["b", "g"]]


async def test_a_name_that_is_just_being_raised_is_raised_again_for_who_asks_now() -> None:
    store = Store()
    raises = BatchedRaises(store.raise_all)
    store.open.clear()
    first = asyncio.create_task(raises.raised(["a"]))
    await turns()
    second = asyncio.create_task(raises.raised(["a"]))
    await turns()
    store.open.set()
    await asyncio.gather(first, second)
    assert store.batches == [["a"], ["a"]]


async def test_a_large_event_is_raised_in_several_batches() -> None:
    store = Store()
    names = [str(number) for number in range(AT_ONCE * 2 + 1)]
    assert await BatchedRaises(store.raise_all).raised(names) == set(names)
    assert [len(batch) for batch in store.batches] == [AT_ONCE, AT_ONCE, 1]


async def test_a_failure_is_told_to_those_of_its_batch_and_the_next_batch_is_tried() -> None:
    store = Store()
    raises = BatchedRaises(store.raise_all)
    store.open.clear()
    store.refused = {"a"}
    first = asyncio.create_task(raises.raised(["a"]))
    await turns()
    second = asyncio.create_task(raises.raised(["b"]))
    store.open.set()
    with pytest.raises(StoreUnavailable):
        await first
    assert await second == {"b"}
    assert not await raises.raised([])


async def test_who_leaves_harms_nobody_who_waits_for_the_same() -> None:
    store = Store()
    raises = BatchedRaises(store.raise_all)
    store.open.clear()
    leaving, staying = (asyncio.create_task(raises.raised(["a"])) for _ in range(2))
    await turns()
    leaving.cancel()
    await turns()
    store.open.set()
    assert await staying == {"a"}
    assert store.batches == [["a"]]


async def test_closing_ends_a_raise_that_hangs() -> None:
    store = Store()
    raises = BatchedRaises(store.raise_all)
    store.open.clear()
    waiting = asyncio.create_task(raises.raised(["a"]))
    await turns()
    waiting.cancel()
    await raises.close()


async def test_each_is_told_which_of_its_names_were_raised_here() -> None:
    store = Store()
    raises = BatchedRaises(store.raise_all)
    store.by_others = {"a"}
    assert await asyncio.gather(raises.raised(["a", "b"]), raises.raised(["c"]), raises.raised(["a"])) == [{"b"}, {"c"}, set()]


async def test_a_batch_that_is_full_does_not_wait_for_the_time_of_the_next() -> None:
    store = Store()
    raises = BatchedRaises(store.raise_all, pause_seconds=3600)
    assert await raises.raised(["lone"]) == {"lone"}
    await turns()
    assert len(await raises.raised([str(number) for number in range(AT_ONCE)])) == AT_ONCE
    late = asyncio.create_task(raises.raised(["late"]))
    await turns(50)
    assert [len(batch) for batch in store.batches] == [1, AT_ONCE]
    late.cancel()
    await raises.close()
