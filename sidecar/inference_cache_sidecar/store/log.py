"""Where packed entries lie: append-only segments, so that no bytes are lost to a fragmented heap.

The memory store owns it. Freed records leave holes; the emptiest segment is emptied by moving its live records to the
end (log-structured memory: Rumble, Kejriwal, Ousterhout, FAST 2014). What is mapped is all that is ever taken.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

_HEAD = Struct("<II")
HEAD_BYTES: Final = _HEAD.size
_SHARE_OF_SEGMENT = 8
_HOLES_WORTH_EMPTYING = 5
"""A segment is emptied once a fifth of it is holes: four records are moved for each one's room."""
_HOLES_WORTH_LOOKING_FOR = 16
"""The same when none has that many, as when a store has just become full and all are alike."""
_OFFSET_BITS = 32
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1
_SEGMENT_OVERHEAD = 512
"""The Python objects of a segment, and the page tables' share."""


@dataclass(slots=True)
class Segment:
    number: int
    memory: mmap.mmap
    size: int
    end: int = 0
    live: int = 0

    @property
    def holes(self) -> int:
        """Bytes that emptying this segment wins."""
        return self.end - self.live


def _holes(segment: Segment) -> int:
    return segment.holes


class Log:
    """Records (slot, bytes) by place, a number. A record too large for a segment gets a mapping of its own."""

    def __init__(self, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
        self.mapped = 0
        """Bytes of all mappings, and what keeping them costs."""
        self.live = 0
        """Bytes of records not freed."""
        self._segments: dict[int, Segment] = {}
        self._next = 0
        self._open: Segment | None = None
        self._sparse: list[int] = []

    def growth(self, length: int) -> int:
        """By how much `mapped` would grow if a record of this length were appended now."""
        size = length + HEAD_BYTES
        if self._alone(size):
            return _pages(size) + _SEGMENT_OVERHEAD
        fits = self._open is not None and self._open.end + size <= self._open.size
        return 0 if fits else self.segment_bytes + _SEGMENT_OVERHEAD

    def append(self, slot: int, packed: bytes) -> int:
        """Returns the place."""
        size = len(packed) + HEAD_BYTES
        segment = self._segment_for(size)
        at = segment.end
        segment.memory[at : at + HEAD_BYTES] = _HEAD.pack(slot, len(packed))
        segment.memory[at + HEAD_BYTES : at + size] = packed
        segment.end += size
        segment.live += size
        self.live += size
        return segment.number << _OFFSET_BITS | at

    def read(self, place: int) -> bytes:
        memory = self._segments[place >> _OFFSET_BITS].memory
        at = place & _OFFSET_MASK
        start = at + HEAD_BYTES
        return memory[start : start + _HEAD.unpack_from(memory, at)[1]]

    def part(self, place: int, span: slice) -> bytes:
        """Some bytes of a record, which are known to be there."""
        start = (place & _OFFSET_MASK) + HEAD_BYTES
        return self._segments[place >> _OFFSET_BITS].memory[start + span.start : start + span.stop]

    def free(self, place: int) -> int:
        """Make a hole; returns the length of the record that was there."""
        segment = self._segments[place >> _OFFSET_BITS]
        length: int = _HEAD.unpack_from(segment.memory, place & _OFFSET_MASK)[1]
        segment.live -= length + HEAD_BYTES
        self.live -= length + HEAD_BYTES
        if segment.live == 0:
            self.drop(segment)
        elif segment is not self._open:
            self._note_if_sparse(segment, length + HEAD_BYTES)
        return length

    def sparse(self) -> Segment | None:
        """A segment worth emptying, if there is one: among those noted, else, at more cost, among all."""
        noted = [self._segments[number] for number in self._sparse if number in self._segments]
        self._sparse = [segment.number for segment in noted]
        if noted:
            return max(noted, key=_holes)
        closed = (segment for segment in self._segments.values() if segment is not self._open)
        emptiest = max(closed, key=_holes, default=None)
        return emptiest if emptiest and emptiest.holes >= emptiest.size // _HOLES_WORTH_LOOKING_FOR else None

    def records(self, segment: Segment) -> Iterator[tuple[int, int, int]]:
        """Slot, place and length of every record ever written to the segment, freed ones too."""
        at = 0
        while at < segment.end:
            slot, length = _HEAD.unpack_from(segment.memory, at)
            yield slot, segment.number << _OFFSET_BITS | at, length
            at += HEAD_BYTES + length

    def drop(self, segment: Segment) -> None:
        """Give the memory back."""
        del self._segments[segment.number]
        segment.memory.close()
        self.mapped -= segment.size + _SEGMENT_OVERHEAD
        self.live -= segment.live
        if segment is self._open:
            self._open = None

    def close(self) -> None:
        for segment in list(self._segments.values()):
            self.drop(segment)

    def _alone(self, size: int) -> bool:
        return size > self.segment_bytes // _SHARE_OF_SEGMENT

    def _segment_for(self, size: int) -> Segment:
        if self._alone(size):
            return self._map(_pages(size))
        if self._open is None or self._open.end + size > self._open.size:
            if self._open is not None:
                self._note_if_sparse(self._open, self._open.holes)
            self._open = self._map(self.segment_bytes)
        return self._open

    def _note_if_sparse(self, segment: Segment, lately_freed: int) -> None:
        """Called once for every hole made, so that the one that passes the limit is seen."""
        limit = segment.size // _HOLES_WORTH_EMPTYING
        if segment.holes >= limit > segment.holes - lately_freed:
            self._sparse.append(segment.number)

    def _map(self, size: int) -> Segment:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        segment = Segment(self._next, memory, size)
        self._segments[self._next] = segment
        self._next += 1
        self.mapped += size + _SEGMENT_OVERHEAD
        return segment


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
