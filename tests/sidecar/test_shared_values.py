"""Values of the shared store: what is written is read, whatever else lies there is a miss, and nothing in it is readable or executed."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_contract.keyspace import Keyspace, scope_and_digest
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.shared.sealing import Sealer, Unsealable
from inference_cache_sidecar.shared.values import Values, manifest

DIMENSIONS = 384
OLD, NEW = b"o" * 32, b"n" * 32
SCOPE = hashlib.sha256(b"scope").digest()
ENTRY = Entry(
    scope=SCOPE,
    digest=hashlib.sha256(b"digest").digest(),
    endpoint=Endpoint.CHAT,
    prompt="What is the secret ingredient?",
    answer=b'{"id":"chatcmpl-1","choices":[{"message":{"content":"It is saffron."}}]}',
    answer_id="chatcmpl-1",
    headers=(("content-type", "application/json"),),
    stamps=(("cache", 1), ("tag:user:4711", 2)),
    created=1_800_000_000.0,
    ttl_seconds=60.0,
    prompt_tokens=5,
    completion_tokens=4,
    upstream_seconds=0.5,
    semantic=True,
)
PLACE = Keyspace("shop/faq").entry("v1", ENTRY.scope, ENTRY.digest)
SAME = manifest("an embedder", DIMENSIONS)


def vector() -> Vector:
    made = np.random.default_rng(1).standard_normal(DIMENSIONS).astype(np.float32)
    unit: Vector = made / np.linalg.norm(made)
    return unit


def values(*keys: bytes, embedder: bytes | None = SAME) -> Values:
    return Values(Sealer(keys), embedder)


@pytest.mark.parametrize("keys", [pytest.param((), id="plain"), pytest.param((NEW,), id="encrypted")])
def test_what_was_written_is_read(keys: tuple[bytes, ...]) -> None:
    entry, found = values(*keys).read(PLACE, values(*keys).write(PLACE, ENTRY, vector()))
    assert entry == ENTRY
    assert found is not None
    assert float(found @ vector()) > 0.9999


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param(SAME, manifest("another embedder", DIMENSIONS), id="another-embedder"),
        pytest.param(SAME, manifest("an embedder", 256), id="other-dimensions"),
        pytest.param(SAME, None, id="not-known-yet-here"),
        pytest.param(None, SAME, id="not-known-there"),
    ],
)
def test_a_vector_of_another_embedder_is_left_out_and_its_entry_is_not(written: bytes | None, read: bytes | None) -> None:
    entry, found = values(embedder=read).read(PLACE, values(embedder=written).write(PLACE, ENTRY, vector()))
    assert entry == ENTRY
    assert found is None


def test_keys_are_rotated_without_losing_what_is_stored() -> None:
    sealed = values(OLD).write(PLACE, ENTRY, None)
    assert values(NEW, OLD).read(PLACE, sealed)[0] == ENTRY
    with pytest.raises(Unsealable):
        values(NEW).read(PLACE, sealed)
    with pytest.raises(Unsealable):
        values(OLD).read(PLACE, values(NEW, OLD).write(PLACE, ENTRY, None))


def test_where_keys_are_given_nothing_plain_is_believed() -> None:
    with pytest.raises(Unsealable):
        values(NEW).read(PLACE, values().write(PLACE, ENTRY, None))


def test_a_value_moved_to_another_key_is_not_read() -> None:
    other = Keyspace("shop/faq").entry("v2", ENTRY.scope, ENTRY.digest)
    with pytest.raises(Unsealable):
        values(NEW).read(other, values(NEW).write(PLACE, ENTRY, None))
    elsewhere = Keyspace("shop/faq").entry("v1", ENTRY.scope, hashlib.sha256(b"another").digest())
    with pytest.raises(Unsealable):
        values().read(elsewhere, values().write(PLACE, ENTRY, None))


def test_an_encrypted_value_shows_nothing_of_what_is_in_it() -> None:
    repetitive = replace(ENTRY, answer=b"saffron " * 1000)
    sealed = values(NEW).write(PLACE, repetitive, vector())
    for plain in (b"saffron", b"secret ingredient", b"user:4711", b"chatcmpl", vector().astype("<f2").tobytes()[:16]):
        assert plain not in sealed
    assert sealed != values(NEW).write(PLACE, repetitive, vector())


@pytest.mark.parametrize("keys", [pytest.param((), id="plain"), pytest.param((NEW,), id="encrypted")])
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_flipped_byte_is_never_served(keys: tuple[bytes, ...], at: int, flip: int) -> None:
    sealed = bytearray(values(*keys).write(PLACE, ENTRY, vector()))
    sealed[at % len(sealed)] ^= flip
    try:
        entry, _ = values(*keys).read(PLACE, bytes(sealed))
    except Unsealable:
        return
    assert entry == ENTRY, "zstd's frame has bits that mean nothing; what they enclose is whole"


@given(st.binary(max_size=2000), st.booleans())
def test_junk_is_unsealable_and_nothing_else(junk: bytes, sealed: bool) -> None:
    value = Sealer().seal(PLACE, junk) if sealed else junk
    with pytest.raises(Unsealable):
        values().read(PLACE, value)
    with pytest.raises(Unsealable):
        values(NEW).read(PLACE, Sealer((NEW,)).seal(PLACE, junk) if sealed else junk)


def test_a_value_that_would_unpack_to_too_much_is_refused_before_it_is_unpacked() -> None:
    bomb = Sealer().seal(PLACE, bytes(80 * 2**20))
    assert len(bomb) < 10_000
    with pytest.raises(Unsealable):
        Sealer().unseal(PLACE, bomb)


@given(cache=st.text(max_size=20), version=st.text(max_size=20), other=st.text(max_size=20))
def test_no_name_reaches_into_the_keys_of_another(cache: str, version: str, other: str) -> None:
    keys = Keyspace(cache)
    key = keys.entry(version, ENTRY.scope, ENTRY.digest)
    assert scope_and_digest(key) == (ENTRY.scope[:16], ENTRY.digest)
    assert not set(b"*?[]{}\\ \n") & set(key)
    assert key.startswith(keys.entries_of(version).removesuffix(b"*"))
    if other != version:
        assert not key.startswith(keys.entries_of(other).removesuffix(b"*"))
    if other != cache:
        assert not key.startswith(Keyspace(other).all_entries().removesuffix(b"*"))
