"""One suite for every implementation of `Epochs`."""

from collections.abc import Callable

import pytest

from inference_cache_contract.epochs import Epochs, reachable, tag_epoch
from inference_cache_sidecar.epochs import MemoryEpochs

MakeEpochs = Callable[[Callable[[], float]], Epochs]


@pytest.fixture(params=[pytest.param(lambda clock: MemoryEpochs(clock=clock), id="memory")])
def make(request: pytest.FixtureRequest) -> MakeEpochs:
    made: MakeEpochs = request.param
    return made


def test_a_name_never_raised_stands_at_zero(make: MakeEpochs) -> None:
    assert make(lambda: 1000.0).current("cache") == 0


def test_a_raised_epoch_is_the_time_in_milliseconds(make: MakeEpochs) -> None:
    epochs = make(lambda: 1000.5)
    assert epochs.raise_epoch("cache") == 1_000_500
    assert epochs.current("cache") == 1_000_500


def test_raising_twice_in_one_millisecond_still_raises(make: MakeEpochs) -> None:
    epochs = make(lambda: 1000.0)
    assert [epochs.raise_epoch("cache") for _ in range(3)] == [1_000_000, 1_000_001, 1_000_002]


def test_a_clock_set_back_never_lowers_an_epoch(make: MakeEpochs) -> None:
    moments = iter([2000.0, 1000.0])
    epochs = make(lambda: next(moments))
    assert epochs.raise_epoch("cache") < epochs.raise_epoch("cache")


async def test_raising_one_name_leaves_the_others(make: MakeEpochs) -> None:
    epochs = make(lambda: 1000.0)
    before = await epochs.stamps(["cache", "version:v1"])
    epochs.raise_epoch("version:v2")
    assert reachable(epochs, before)
    epochs.raise_epoch("version:v1")
    assert not reachable(epochs, before)


async def test_a_million_tags_take_bounded_memory_and_nothing_flushed_comes_back() -> None:
    epochs = MemoryEpochs(clock=lambda: 1000.0, max_names=100)
    untagged = await epochs.stamps(["cache"])
    flushed = []
    for number in range(1000):
        flushed.append(await epochs.stamps([tag_epoch(str(number))]))
        epochs.raise_epoch(tag_epoch(str(number)))
    assert len(epochs._values) <= 100
    assert not any(reachable(epochs, stamped) for stamped in flushed)
    assert reachable(epochs, untagged)


async def test_an_entry_stored_after_its_tag_was_forgotten_is_reachable_until_the_next_flush() -> None:
    epochs = MemoryEpochs(clock=lambda: 1000.0, max_names=10)
    for number in range(50):
        epochs.raise_epoch(tag_epoch(str(number)))
    fresh = await epochs.stamps([tag_epoch("0")])
    assert reachable(epochs, fresh)
    epochs.raise_epoch(tag_epoch("0"))
    assert not reachable(epochs, fresh)
