"""What replicas tell each other of a flight, as bytes: it comes out as it went in, and nothing else does."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_sidecar.coalescing.records import End, GarbledError, Head, Stop, decode, encode
from inference_cache_sidecar.query.model import Rendition

ENTRY = Entry(b"s" * 32, b"d" * 32, Endpoint.CHAT, "hello", b"{}", "a", (), (("cache", 1),), 1.0, 60.0, 1, 1, 0.5, False)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_garbled(record):
    with suppress(GarbledError):
        decode(record)


@given(st.sampled_from([1, 2, 3, 4, 5, 6]), st.binary(max_size=100) | st.from_regex(r'\[200, "OK", .*', fullmatch=True).map(str.encode))
def test_any_content_of_a_frame_is_an_item_or_garbled(kind, content):
    with suppress(GarbledError):
        decode(bytes([kind]) + len(content).to_bytes(4, "little") + content)


TEXT = st.text(st.characters(exclude_characters="\r\n\0"), max_size=20)
HEADS = st.builds(
    Head,
    st.integers(200, 599),
    TEXT,
    st.lists(st.tuples(st.from_regex(r"[a-z-]{1,10}", fullmatch=True), TEXT), max_size=4).map(tuple),
    st.booleans(),
    st.binary(max_size=32),
    st.builds(Rendition, st.booleans(), st.booleans(), st.booleans()),
)


@given(st.lists(HEADS | st.binary(max_size=50) | st.sampled_from(Stop) | st.just(End(None)) | st.just(End(ENTRY)), max_size=5))
def test_items_come_out_as_they_went_in(items):
    assert decode(encode(items)) == items


@pytest.mark.parametrize(
    "head",
    [
        pytest.param('[200, "OK", [], true, "", [true, true]]', id="short-wishes"),
        pytest.param('["200", "OK", [], true, "", [true, true, true]]', id="status-as-text"),
        pytest.param('[true, "OK", [], true, "", [true, true, true]]', id="status-as-truth"),
        pytest.param('[100, "OK", [], true, "", [true, true, true]]', id="status-of-no-answer"),
        pytest.param('[200, "O\\r\\nK", [], true, "", [true, true, true]]', id="line-break-in-the-reason"),
        pytest.param('[200, "OK", [["a", "b\\r\\nc: d"]], true, "", [true, true, true]]', id="line-break-in-a-header"),
        pytest.param('[200, "OK", [["a b", "c"]], true, "", [true, true, true]]', id="space-in-a-name"),
        pytest.param('[200, "OK", [["", "c"]], true, "", [true, true, true]]', id="no-name"),
        pytest.param('[200, "OK", [], 1, "", [true, true, true]]', id="number-for-truth"),
        pytest.param('[200, "OK", [], true, "xy", [true, true, true]]', id="credential-not-hexadecimal"),
        pytest.param("[" * 100_000, id="nested-deeply"),
    ],
)
def test_heads_that_are_none_are_garbled(head):
    content = head.encode()
    with pytest.raises(GarbledError):
        decode(b"\x01" + len(content).to_bytes(4, "little") + content)
