"""Of the replicas that heard the same event one raises, and none relies on a raise that may not be there."""

import asyncio
from collections.abc import Sequence

from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.events.heard import RaisedByOne


async def turns(count: int = 5) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


class Replicas:
    """What replicas that heard the same event share: the store. What each knows itself follows at once, unless it is `deaf`."""

    def __init__(self) -> None:
        self.stored: dict[str, int] = {}
        self.deaf: set[int] = set()
        self.down = False
        self.raised: list[tuple[int, str]] = []
        self.known: list[MemoryEpochs] = []

    def replica(self, wait_seconds: float = 0.0, *, first: bool = False) -> RaisedByOne:
        number, epochs = len(self.known), MemoryEpochs(clock=lambda: 0.0)
        self.known.append(epochs)

        async def raised(names: Sequence[str]) -> Sequence[str]:
            for name in names:
                self.raise_one(number, name)
            return names

        return RaisedByOne(epochs, self.values, raised, lambda: first, wait_seconds)

    async def values(self, names: Sequence[str]) -> list[int | None]:
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable("the shared store is not there")
        return [self.stored.get(name) for name in names]

    def raise_one(self, number: int, name: str) -> None:
        self.raised.append((number, name))
        self.stored[name] = self.stored.get(name, 0) + 1
        for other, epochs in enumerate(self.known):
            while other not in self.deaf and epochs.current(name) < self.stored[name]:
                epochs.raise_epoch(name)


async def test_what_another_replica_raised_after_the_event_was_heard_is_not_raised_again() -> None:
    replicas = Replicas()
    replicas.stored = {"a": 1}
    replicas.known.append(MemoryEpochs(clock=lambda: 0.0))
    slow = replicas.replica(wait_seconds=0.3)
    hearing = asyncio.create_task(slow.raised(["a", "b"]))
    await turns(3)
    replicas.raise_one(0, "a")
    assert await hearing == {"b"}
    assert replicas.raised == [(0, "a"), (1, "b")]


async def test_a_raise_from_before_the_event_was_heard_does_not_count() -> None:
    replicas = Replicas()
    replicas.stored = {"a": 1}
    replica = replicas.replica()
    assert await replica.raised(["a"]) == {"a"}
    assert await replica.raised(["a"]) == {"a"}
    assert replicas.stored == {"a": 3}


async def test_a_name_that_the_store_did_not_have_is_raised_by_each() -> None:
    replicas = Replicas()
    await asyncio.gather(*(replicas.replica().raised(["a"]) for _ in range(3)))
    assert len(replicas.raised) == 3


async def test_a_raise_that_was_not_announced_to_this_replica_is_not_relied_upon() -> None:
    replicas = Replicas()
    replicas.stored = {"a": 5}
    slow = replicas.replica(wait_seconds=0.3)
    replicas.known[0].raise_epoch("a")
    replicas.deaf = {0}
    hearing = asyncio.create_task(slow.raised(["a"]))
    await turns(3)
    replicas.raise_one(9, "a")
    assert await hearing == {"a"}


async def test_a_replica_that_cannot_read_the_store_raises() -> None:
    replicas = Replicas()
    replicas.stored, replicas.down = {"a": 1}, True
    assert await replicas.replica().raised(["a", "a"]) == {"a"}


async def test_of_many_replicas_that_hear_the_same_the_first_raises() -> None:
    replicas = Replicas()
    replicas.stored = {"a": 1}
    hearing = [replicas.replica(wait_seconds=0.2, first=number == 7) for number in range(20)]
    await asyncio.gather(*(replica.raised(["a"]) for replica in hearing))
    assert replicas.raised == [(7, "a")]


async def test_where_none_is_the_first_the_name_is_raised_all_the_same() -> None:
    replicas = Replicas()
    replicas.stored = {"a": 1}
    await asyncio.gather(*(replicas.replica(wait_seconds=0.01).raised(["a"]) for _ in range(3)))
    assert replicas.raised


async def test_of_two_equal_events_the_later_one_counts() -> None:
    """A raise between the two is one that only the first may rely on."""
    replicas = Replicas()
    replicas.stored = {"a": 1}
    replicas.known.append(MemoryEpochs(clock=lambda: 0.0))
    slow = replicas.replica(wait_seconds=0.3)
    first = asyncio.create_task(slow.raised(["a"]))
    await turns(3)
    replicas.raise_one(0, "a")
    second = asyncio.create_task(slow.raised(["a"]))
    assert await second == {"a"}
    await first
    assert replicas.raised == [(0, "a"), (1, "a")]
