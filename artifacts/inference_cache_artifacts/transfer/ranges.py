"""Which bytes of a file are there: disjoint ranges, start inclusive, end exclusive. Pure; not safe for threads."""

import bisect
from collections.abc import Iterable, Iterator


class Ranges:
    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    @property
    def total(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        """Joined with what it touches or overlaps; empty ranges are nothing."""
        if start >= end:
            return
        first, behind = bisect.bisect_left(self._ends, start), bisect.bisect_right(self._starts, end)
        if first < behind:
            start, end = min(start, self._starts[first]), max(end, self._ends[behind - 1])
        self._starts[first:behind] = [start]
        self._ends[first:behind] = [end]

    def end_of(self, position: int) -> int:
        """Where what begins at `position`, without a gap, ends; `position` itself if it is not there."""
        index = bisect.bisect_right(self._starts, position) - 1
        return max(position, self._ends[index]) if index >= 0 else position

    def missing(self, size: int) -> list[tuple[int, int]]:
        """The gaps of a file of so many bytes."""
        edges = [0, *(edge for each in self for edge in each), size]
        return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]
