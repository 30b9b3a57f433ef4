"""Bytes of a connection on their way into a file: all of them, each once, and in whole pages as far as that goes."""

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from inference_cache_artifacts.store.direct import ALIGNMENT, pages
from inference_cache_artifacts.transfer.pieces import HELD_SECONDS, Reading

BUFFER_BYTES = 4 * ALIGNMENT
CONTENT = random.Random(6).randbytes(16 * ALIGNMENT)


class Written:
    """In the place of an Assembly."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes]] = []

    def write(self, view: memoryview, offset: int) -> None:
        self.writes.append((offset, bytes(view)))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def filled(reading: Reading, start: int, end: int, counts: Sequence[int], clock: Clock, seconds: float) -> None:
    """As from a connection that gives so many bytes at once, with a pause before each."""
    position, waiting = start, iter(counts)
    while reading.wants(end):
        free = reading.free(end)
        count = min(len(free), next(waiting, len(free)))
        free[:count] = CONTENT[position : position + count]
        position += count
        clock.now += seconds
        reading.took(count)
    assert reading.flushed() == end


@given(
    edges=st.tuples(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT))).map(sorted),
    counts=st.lists(st.integers(1, BUFFER_BYTES)),
    seconds=st.sampled_from([0.0, HELD_SECONDS / 3, HELD_SECONDS]),
)
def test_every_byte_comes_once_and_in_order(edges: Sequence[int], counts: Sequence[int], seconds: float) -> None:
    start, end = edges
    written, clock = Written(), Clock()
    filled(Reading(written.write, start, pages(BUFFER_BYTES), clock), start, end, counts, clock, seconds)
    assert b"".join(content for _, content in written.writes) == CONTENT[start:end]
    assert [offset for offset, _ in written.writes] == [start, *(o + len(c) for o, c in written.writes[:-1])][: len(written.writes)]
    # Only where the piece itself begins or ends, a page is not whole.
    assert all(offset % ALIGNMENT == 0 for offset, _ in written.writes[1:])


def test_a_quick_connection_writes_whole_buffers() -> None:
    written, clock = Written(), Clock()
    filled(Reading(written.write, 100, pages(BUFFER_BYTES), clock), 100, len(CONTENT), [1000] * 1000, clock, 0.0)
    assert [offset for offset, _ in written.writes] == [100, *range(BUFFER_BYTES, len(CONTENT), BUFFER_BYTES)]


def test_what_comes_slowly_is_not_kept_back() -> None:
    written, clock = Written(), Clock()
    filled(Reading(written.write, 0, pages(BUFFER_BYTES), clock), 0, len(CONTENT), [ALIGNMENT] * 16, clock, 2 * HELD_SECONDS)
    assert max(len(content) for _, content in written.writes) <= 2 * ALIGNMENT
