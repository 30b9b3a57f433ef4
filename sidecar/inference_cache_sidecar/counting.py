"""Plain numbers that count what happens, cheap enough for every request. `metrics` is made of them, `exposition` reads them.

An increment here costs a tenth of prometheus_client's, which locks and looks up; the numbers are exposed when somebody scrapes.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
"""Upper bounds of the buckets: an exact hit at the lower end, a long generation at the upper."""
MAX_LABELS: Final = 64
OTHER: Final = "other"


class Counts:
    """A counter by one label. Past `MAX_LABELS` different ones all count as `other`, so that no caller can fill memory."""

    __slots__ = ("_values",)

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._values: dict[str, float] = dict.fromkeys(known, 0)

    def add(self, label: str, amount: float = 1) -> None:
        values = self._values
        if label not in values:
            if len(values) >= MAX_LABELS:
                label = OTHER
            values.setdefault(label, 0)
        values[label] += amount

    def items(self) -> Iterator[tuple[str, float]]:
        return iter(list(self._values.items()))

    def __getitem__(self, label: str) -> float:
        return self._values.get(label, 0)


class Histogram:
    """How many took how long."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, how many took at most so long), ending with +Inf."""
        reached = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(repr, SECONDS), "+Inf"), self.counts, strict=True):
            reached += count
            buckets.append((bound, reached))
        return buckets
