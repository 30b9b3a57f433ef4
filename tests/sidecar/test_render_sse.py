import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_cache_sidecar.render.sse import EventSplitter, data_of

EVENTS = [b"data: {}\n\n", b'event: x\r\ndata: {"a":1}\r\n\r\n', b": ping\n\n", b"data: a\ndata: b\n\n", b"data: [DONE]\n\n"]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


@given(
    events=st.lists(st.sampled_from(EVENTS), max_size=6),
    places=st.lists(st.integers(0, 300), max_size=12),
    tail=st.sampled_from([b"", b"data: hal"]),
)
def test_events_are_the_same_wherever_the_stream_is_cut(events: list[bytes], places: list[int], tail: bytes) -> None:
    splitter = EventSplitter()
    found = [event for chunk in cut(b"".join(events) + tail, places) for event in splitter.feed(chunk)]
    assert found == events
    assert splitter.remainder == tail
    assert not splitter.overflowed


@given(stream=st.binary(max_size=200) | st.text("\r\nda: ", max_size=60).map(str.encode), places=st.lists(st.integers(0, 300), max_size=12))
def test_no_byte_is_lost_whatever_comes(stream: bytes, places: list[int]) -> None:
    splitter = EventSplitter(max_event_bytes=20)
    found = b"".join(event for chunk in cut(stream, places) for event in splitter.feed(chunk))
    assert found + splitter.remainder == stream


def test_an_event_without_end_is_let_through_in_bounded_memory() -> None:
    splitter = EventSplitter(max_event_bytes=1000)
    out = [splitter.feed(b"x" * 300) for _ in range(5)]
    assert out == [[], [], [], [b"x" * 1200], [b"x" * 300]]
    assert splitter.overflowed
    assert splitter.remainder == b""


@pytest.mark.parametrize(
    ("event", "data"),
    [
        pytest.param(b"data: {}\n\n", b"{}", id="one-line"),
        pytest.param(b"data:{}\n\n", b"{}", id="no-space"),
        pytest.param(b"event: x\ndata: {}\n\n", b"{}", id="named"),
        pytest.param(b"data: {}\r\n\r\n", b"{}", id="crlf"),
        pytest.param(b"data: a\ndata: b\n\n", b"a\nb", id="two-lines"),
        pytest.param(b": ping\n\n", None, id="comment"),
        pytest.param(b"event: ping\n\n", None, id="no-data"),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data
