"""One page of memory that supervisor and workers share: heartbeats, orders and counts.

Every word has one writer, and is written whole; those of the drain, which outlive a worker, the one writes that serves. Times are
nanoseconds of the system-wide monotonic clock.
"""

import mmap
import os
import time
from enum import IntEnum
from typing import Final

SLOTS: Final = 8
"""Workers at once, at most: one that serves, its successor, and old ones that finish their streams."""
_BYTES: Final = 4096
_SLOT_WORDS: Final = 8
_FIRST_SLOT: Final = 32


class Count(IntEnum):
    """What the supervisor tells all workers."""

    RELAYED = 0
    """Connections that go past the cache at present."""
    RELAYED_EVER = 1
    RETIRING = 2
    """Old workers that finish their requests."""
    RESTARTS = 3
    HAND_OVERS = 4
    MEMORY_USED = 5
    MEMORY_LIMIT = 6
    """Bytes of the container; 0: not known."""


_DRAIN_BEGUN: Final = 16
_DRAINED_PROCESS: Final = 17


class _Word(IntEnum):
    BEAT = 0
    ACCEPTING = 1
    ASKED = 2
    SHED = 3
    RETIRED = 4
    RESTORED = 5


class SharedPage:
    """As the supervisor sees it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._words = memoryview(mmap.mmap(descriptor, _BYTES)).cast("q")

    def tell(self, count: Count, value: int) -> None:
        self._words[count] = value

    def told(self, count: Count) -> int:
        return self._words[count]

    def clear(self, slot: int) -> None:
        """For a worker that is about to start."""
        for word in _Word:
            self._words[_at(slot, word)] = 0

    def beat_seconds(self, slot: int) -> float:
        """When that worker's loop ran last; 0: never."""
        return self._words[_at(slot, _Word.BEAT)] / 1e9

    def accepting(self, slot: int) -> bool:
        return bool(self._words[_at(slot, _Word.ACCEPTING)])

    def asked_for_successor(self, slot: int) -> bool:
        return bool(self._words[_at(slot, _Word.ASKED)])

    def order_shedding(self, slot: int) -> None:
        self._words[_at(slot, _Word.SHED)] += 1

    def order_restoring(self, slot: int) -> None:
        self._words[_at(slot, _Word.RESTORED)] += 1

    def retire(self, slot: int) -> None:
        self._words[_at(slot, _Word.RETIRED)] = 1

    @property
    def drain_began(self) -> float:
        """By the monotonic clock; 0: it is not draining."""
        return self._words[_DRAIN_BEGUN] / 1e9


class WorkerPage:
    """As one worker sees it."""

    def __init__(self, descriptor: int, slot: int) -> None:
        self._page = SharedPage(descriptor)
        self._words = self._page._words  # noqa: SLF001  the other view of the same page
        self._slot = slot

    def beat(self) -> None:
        """This worker's event loop runs."""
        self._words[_at(self._slot, _Word.BEAT)] = time.monotonic_ns()

    def accept(self) -> None:
        """From now on it takes connections."""
        self._words[_at(self._slot, _Word.ACCEPTING)] = 1

    def ask_for_successor(self) -> None:
        """Another worker is to take over, which reads the newest configuration; this one then finishes its requests."""
        self._words[_at(self._slot, _Word.ASKED)] = 1

    def begin_drain(self, began: float, process: int) -> None:
        """`began` by the monotonic clock, `process` as `identity` numbers the model server's."""
        self._words[_DRAINED_PROCESS] = process
        self._words[_DRAIN_BEGUN] = int(began * 1e9)

    def end_drain(self) -> None:
        self._words[_DRAIN_BEGUN] = 0

    @property
    def drain(self) -> tuple[float, int] | None:
        """As it was begun, by this worker or another one."""
        began = self._words[_DRAIN_BEGUN]
        return (began / 1e9, self._words[_DRAINED_PROCESS]) if began else None

    @property
    def shedding_orders(self) -> int:
        """How often it was told to keep less."""
        return self._words[_at(self._slot, _Word.SHED)]

    @property
    def restoring_orders(self) -> int:
        """How often it was told to keep as much as its spec allows again."""
        return self._words[_at(self._slot, _Word.RESTORED)]

    @property
    def retired(self) -> bool:
        """Its successor has taken over."""
        return bool(self._words[_at(self._slot, _Word.RETIRED)])

    def told(self, count: Count) -> int:
        return self._page.told(count)

    def relayed(self) -> int:
        """What of this container this worker does not see: connections past the cache, and one for each old worker that has not ended."""
        return self.told(Count.RELAYED) + self.told(Count.RETIRING) - self.retired


def new_page() -> SharedPage:
    descriptor = os.memfd_create("inference-cache")
    os.ftruncate(descriptor, _BYTES)
    return SharedPage(descriptor)


def _at(slot: int, word: _Word) -> int:
    return _FIRST_SLOT + slot * _SLOT_WORDS + word
