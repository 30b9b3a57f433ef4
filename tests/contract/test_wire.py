import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_cache_contract import wire
from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry

ENTRY = Entry(
    scope=bytes(range(32)),
    digest=bytes(range(32, 64)),
    endpoint=Endpoint.CHAT,
    prompt="Wie ändere ich die Adresse?",
    answer=b'{"id":"chatcmpl-1","choices":[]}',
    answer_id="chatcmpl-1",
    headers=(("content-type", "application/json"), ("access-control-allow-origin", "*")),
    stamps=(("cache", 0), ("tag:user:7", 1_800_000_000_000)),
    created=1_800_000_000.25,
    ttl_seconds=86_400.0,
    prompt_tokens=12,
    completion_tokens=345,
    upstream_seconds=4.2,
    semantic=True,
)

names = st.text(max_size=40)
entries = st.builds(
    Entry,
    scope=st.binary(min_size=32, max_size=32),
    digest=st.binary(min_size=32, max_size=32),
    endpoint=st.sampled_from(Endpoint),
    prompt=st.text(),
    answer=st.binary(),
    answer_id=names,
    headers=st.lists(st.tuples(names, names), max_size=4).map(tuple),
    stamps=st.lists(st.tuples(names, st.integers(-(2**63), 2**63 - 1)), max_size=4).map(tuple),
    created=st.floats(allow_nan=False, allow_infinity=False),
    ttl_seconds=st.floats(allow_nan=False),
    prompt_tokens=st.integers(0, 2**32 - 1),
    completion_tokens=st.integers(0, 2**32 - 1),
    upstream_seconds=st.floats(allow_nan=False),
    semantic=st.booleans(),
)


@given(entries)
def test_an_entry_comes_back_as_it_went_in(entry: Entry) -> None:
    assert wire.unpack(wire.pack(entry)) == entry


@pytest.mark.parametrize("endpoint", [pytest.param(endpoint, id=endpoint.value) for endpoint in Endpoint])
def test_every_endpoint_has_a_code(endpoint: Endpoint) -> None:
    assert wire.unpack(wire.pack(replace(ENTRY, endpoint=endpoint))).endpoint is endpoint


def test_a_lone_surrogate_in_a_prompt_survives() -> None:
    entry = replace(ENTRY, prompt="\ud83d")
    assert wire.unpack(wire.pack(entry)) == entry


def test_digest_and_scope_can_be_read_without_unpacking() -> None:
    packed = wire.pack(ENTRY)
    assert (packed[wire.DIGEST], packed[wire.SCOPE]) == (ENTRY.digest, ENTRY.scope)


def test_the_layout_of_this_version_is_fixed() -> None:
    """Stores outlive processes: a change of layout must come with another WIRE_VERSION and another golden text."""
    small = replace(ENTRY, headers=(("a", "b"),), stamps=(("cache", 3),), answer_id="i", prompt="p", answer=b"{}")
    assert wire.WIRE_VERSION == 1
    assert wire.pack(small).hex() == (
        "01010100"
        + bytes(range(32, 64)).hex()
        + bytes(range(32)).hex()
        + "0000108074d2da41000000000018f540cdcccccccccc1040"
        + "0c00000059010000"
        + "060000000f000000010000000100000002000000"
        + "010061010062"
        + "050063616368650300000000000000"
        + "6970"
        + "7b7d"
    )


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(replace(ENTRY, digest=b"short"), id="short-digest"),
        pytest.param(replace(ENTRY, scope=bytes(33)), id="long-scope"),
        pytest.param(replace(ENTRY, created=float("nan")), id="created-is-not-a-number"),
        pytest.param(replace(ENTRY, ttl_seconds=float("nan")), id="ttl-is-not-a-number"),
        pytest.param(replace(ENTRY, prompt_tokens=-1), id="negative-tokens"),
        pytest.param(replace(ENTRY, completion_tokens=2**32), id="too-many-tokens"),
        pytest.param(replace(ENTRY, headers=(("x", "y" * 70_000),)), id="header-too-long"),
        pytest.param(replace(ENTRY, stamps=(("cache", 2**63),)), id="epoch-too-large"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(entry: Entry) -> None:
    with pytest.raises(wire.WireError):
        wire.pack(entry)


@pytest.mark.parametrize("length", [pytest.param(length, id=f"{length}-bytes") for length in (0, 1, 67, 119, 120, 150)])
def test_cut_off_bytes_are_not_an_entry(length: int) -> None:
    with pytest.raises(wire.WireError):
        wire.unpack(wire.pack(ENTRY)[:length])


def test_another_version_is_not_an_entry() -> None:
    packed = bytearray(wire.pack(ENTRY))
    packed[0] += 1
    with pytest.raises(wire.WireError):
        wire.unpack(bytes(packed))


def test_bytes_after_the_end_are_not_an_entry() -> None:
    with pytest.raises(wire.WireError):
        wire.unpack(wire.pack(ENTRY) + b"x")


@given(st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_a_wire_error(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.unpack(data)


def test_damaged_bytes_are_an_entry_or_a_wire_error() -> None:
    dice = random.Random(7)
    packed = wire.pack(ENTRY)
    refused = 0
    for _ in range(5000):
        damaged = bytearray(packed)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            assert isinstance(wire.unpack(bytes(damaged)), Entry)
        except wire.WireError:
            refused += 1
    assert refused > 500
