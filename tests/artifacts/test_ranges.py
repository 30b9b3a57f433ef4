"""Ranges of a file against a plain set of positions."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from inference_cache_artifacts.transfer.ranges import Ranges

SIZE = 40
ranges = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda pair: (min(pair), max(pair))), max_size=12)


@given(ranges)
def test_ranges_say_what_a_set_of_positions_says(added: list[tuple[int, int]]) -> None:
    there = {position for start, end in added for position in range(start, end)}
    found = Ranges(added)
    assert found.total == len(there)
    assert {position for start, end in found for position in range(start, end)} == there
    assert {position for start, end in found.missing(SIZE) for position in range(start, end)} == set(range(SIZE)) - there
    for position in range(SIZE + 1):
        end = next(each for each in range(position, SIZE + 2) if each not in there)
        assert found.end_of(position) == end


@given(ranges)
def test_ranges_are_joined_where_they_touch(added: list[tuple[int, int]]) -> None:
    found = list(Ranges(added))
    assert all(first[1] < second[0] for first, second in itertools.pairwise(found))
