"""What an entry is worth keeping for: value-aware eviction, decided without touching an entry.

GreedyDual-Size-Frequency (Cherkasova, HP Labs 1998): an entry's priority is an age that only rises, plus what it cost
times how often it was used, divided by its bytes. The age is the priority of what went last, so an entry that is no
longer used is overtaken in the end, however dear it was.
"""

from array import array
from sys import getsizeof
from typing import Final

import numpy as np
import numpy.typing as npt

from inference_cache_contract.entry import Entry
from inference_cache_sidecar.index.vectors import distinct

EMPTY: Final = float("inf")
"""The priority of a slot that holds nothing: never the lowest."""

_SAMPLE = 512
_EXACT_BELOW = 4096
_BATCH = 8
_MOST_USES = 0xFFFF
_LEAST_SECONDS = 0.001


def cost(entry: Entry) -> float:
    """Tokens times the seconds upstream took for them: what one hit saves."""
    tokens = max(1, entry.prompt_tokens + entry.completion_tokens)
    return tokens * min(max(entry.upstream_seconds, _LEAST_SECONDS), 1e6)


class Worth:
    """Priorities by slot, in arrays: eighteen bytes an entry."""

    def __init__(self) -> None:
        self._random = np.random.default_rng()
        self._age = 0.0
        self._priority = array("d")
        self._per_use = array("d")
        self._uses = array("H")
        self._lowest: list[tuple[float, int]] = []

    @property
    def nbytes(self) -> int:
        return getsizeof(self._priority) + getsizeof(self._per_use) + getsizeof(self._uses)

    def entered(self, slot: int, cost_per_byte: float, uses: int = 0) -> None:
        """`uses` is what a replaced entry of the same digest had: it is asked for as often as before."""
        if slot == len(self._priority):
            self._priority.append(EMPTY)
            self._per_use.append(0.0)
            self._uses.append(0)
        self._per_use[slot] = cost_per_byte
        self._uses[slot] = uses
        self.used(slot)

    def used(self, slot: int) -> None:
        uses = min(self._uses[slot] + 1, _MOST_USES)
        self._uses[slot] = uses
        self._priority[slot] = self._age + uses * self._per_use[slot]

    def left(self, slot: int) -> None:
        self._priority[slot] = EMPTY

    def uses(self, slot: int) -> int:
        return self._uses[slot]

    def outranks(self, slot: int, cost_per_byte: float) -> bool:
        """Whether the entry in `slot` is worth more than a new one would be."""
        return self._priority[slot] > self._age + cost_per_byte

    def grow_old(self, cost_per_byte: float) -> None:
        """A new entry went before all others: its priority is the age now."""
        self._age += cost_per_byte

    def evicted(self, slot: int) -> None:
        """The age rises to the priority of the entry that goes."""
        self._age = max(self._age, self._priority[slot])

    def lowest(self) -> int | None:
        """The slot to evict: the exact lowest of a small store, the lowest of a large sample of a large one."""
        while True:
            while self._lowest:
                priority, slot = self._lowest[-1]
                if self._priority[slot] == priority:
                    return slot
                self._lowest.pop()
            self._lowest = self._pick()
            if not self._lowest:
                return None

    def _pick(self) -> list[tuple[float, int]]:
        """Some of the lowest priorities, the very lowest last."""
        priorities = np.frombuffer(self._priority, dtype=np.float64)
        if len(priorities) <= _EXACT_BELOW:
            return _lowest_of(priorities, np.arange(len(priorities)))
        sample = distinct(self._random.integers(0, len(priorities), _SAMPLE))
        return _lowest_of(priorities, sample) or _lowest_of(priorities, np.array([priorities.argmin()]))


def _lowest_of(priorities: npt.NDArray[np.float64], slots: npt.NDArray[np.int64]) -> list[tuple[float, int]]:
    chosen = slots[np.argsort(priorities[slots], kind="stable")[:_BATCH]]
    lowest = zip(priorities[chosen].tolist(), chosen.tolist(), strict=True)
    return [entry for entry in lowest if entry[0] != EMPTY][::-1]
