import pytest

from inference_cache_sidecar.features.store import OVERHEAD_BYTES, MemoryCells


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


async def test_memory_gives_what_was_set_until_its_time_is_over(seconds: Seconds) -> None:
    store = MemoryCells(10_000, seconds)
    await store.set_many([(b"a", b"1", 5.0), (b"b", b"2", 10.0)])
    assert await store.get_many([b"b", b"x", b"a"]) == [b"2", None, b"1"]
    seconds.now = 5.0
    assert await store.get_many([b"a", b"b"]) == [None, b"2"]
    assert store.used_bytes == 2 + OVERHEAD_BYTES


async def test_memory_keeps_within_its_bytes_and_forgets_what_was_used_longest_ago(seconds: Seconds) -> None:
    store = MemoryCells(3 * (OVERHEAD_BYTES + 2), seconds)
    await store.set_many([(key, b"v", 9.0) for key in (b"a", b"b", b"c")])
    await store.get_many([b"a"])
    await store.set_many([(b"d", b"v", 9.0)])
    assert await store.get_many([b"a", b"b", b"c", b"d"]) == [b"v", None, b"v", b"v"]
    await store.set_many([(b"huge", b"v" * 10_000, 9.0)])
    assert store.used_bytes == 0


async def test_a_key_set_again_counts_once(seconds: Seconds) -> None:
    store = MemoryCells(10_000, seconds)
    for value in (b"1", b"22", b"333"):
        await store.set_many([(b"a", value, 9.0)])
    assert store.used_bytes == 4 + OVERHEAD_BYTES
