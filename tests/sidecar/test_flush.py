import asyncio
import logging

import pytest

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_contract.epochs import CACHE, Epochs, Stamp, adapter_epoch, category_epoch, reachable, tag_epoch, version_epoch
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.flush import Flusher, FlushIncomplete, FlushRequest
from inference_cache_sidecar.index.protocol import Neighbour, Vector
from inference_cache_sidecar.store.protocol import StoreStats


class DictStore:
    """A store without a cap: what a flush needs of one."""

    def __init__(self, epochs: Epochs) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.epochs = epochs
        self.flushed = 0

    async def get(self, scope: bytes, digest: bytes, *, stale_seconds: float = 0.0) -> Entry | None:
        return await self.peek(scope, digest)

    async def peek(self, scope: bytes, digest: bytes) -> Entry | None:
        entry = self.entries.get(digest)
        return entry if entry is not None and reachable(self.epochs, entry.stamps) else None

    async def put(self, entry: Entry, vector: Vector | None) -> bool:
        self.entries[entry.digest] = entry
        return True

    async def holds(self, digest: bytes) -> bool:
        return digest in self.entries

    async def delete(self, digest: bytes) -> bool:
        return self.entries.pop(digest, None) is not None

    async def neighbours(self, scope: bytes, vector: Vector, limit: int) -> list[Neighbour]:
        return []

    async def count(self, name: str) -> int:
        return sum(name in dict(entry.stamps) for entry in self.entries.values() if reachable(self.epochs, entry.stamps))

    async def purge(self, name: str) -> int:
        gone = [digest for digest, entry in self.entries.items() if not reachable(self.epochs, entry.stamps)]
        for digest in gone:
            del self.entries[digest]
        self.flushed += len(gone)
        return len(gone)

    def stats(self) -> StoreStats:
        return StoreStats(len(self.entries), 0, 0, 0, 0, 0, 0, 0, self.flushed, 0)


def entry(number: int, *stamps: Stamp) -> Entry:
    return Entry(b"s" * 32, bytes([number]) * 32, Endpoint.CHAT, "", b"{}", "", (), stamps, 0.0, 60.0, 1, 1, 1.0, semantic=False)


async def stocked() -> tuple[DictStore, Flusher]:
    epochs = MemoryEpochs(clock=lambda: 1.0)
    store = DictStore(epochs)
    for number, names in enumerate(
        [[], [tag_epoch("a")], [tag_epoch("a"), category_epoch("pricing")], [tag_epoch("b"), adapter_epoch("lora")]]
    ):
        await store.put(entry(number, *((name, 0) for name in [CACHE, version_epoch("v1"), *names])), None)
    return store, Flusher(epochs, store)


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        pytest.param(FlushRequest("all"), set(), id="all"),
        pytest.param(FlushRequest("version", "v1"), set(), id="version"),
        pytest.param(FlushRequest("version", "v2"), {0, 1, 2, 3}, id="another-version"),
        pytest.param(FlushRequest("tag", "a"), {0, 3}, id="tag"),
        pytest.param(FlushRequest("category", "pricing"), {0, 1, 3}, id="category"),
        pytest.param(FlushRequest("adapter", "lora"), {0, 1, 2}, id="adapter"),
        pytest.param(FlushRequest("key", (b"\x03" * 32).hex()), {0, 1, 2}, id="key"),
        pytest.param(FlushRequest("key", (b"\x09" * 32).hex()), {0, 1, 2, 3}, id="unknown-key"),
    ],
)
async def test_a_dry_run_counts_what_the_flush_then_removes(request_: FlushRequest, kept: set[int]) -> None:
    store, flusher = await stocked()
    foreseen = await flusher.flush(FlushRequest(request_.target, request_.value, dry_run=True))
    assert len(store.entries) == 4
    result = await flusher.flush(request_)
    assert {digest[0] for digest in store.entries} == kept
    assert result.count == foreseen.count == 4 - len(kept)


async def test_a_flush_raises_the_epoch_and_a_dry_run_does_not() -> None:
    store, flusher = await stocked()
    assert (await flusher.flush(FlushRequest("tag", "a", dry_run=True))).epoch == 0
    assert (await flusher.flush(FlushRequest("tag", "a"))).epoch == 1000
    assert store.epochs.current(tag_epoch("a")) == 1000
    assert store.epochs.current(CACHE) == 0


async def test_entries_are_unreachable_before_their_bytes_are_deleted() -> None:
    store, flusher = await stocked()
    seen: list[int] = []
    purge = store.purge

    async def watched(name: str) -> int:
        seen.append(await store.count(CACHE))
        return await purge(name)

    store.purge = watched  # type: ignore[method-assign]  # to look at the moment in between
    await flusher.flush(FlushRequest("all"))
    assert seen == [0]


async def test_a_second_flush_finds_nothing_left() -> None:
    _, flusher = await stocked()
    await flusher.flush(FlushRequest("tag", "a"))
    again = await flusher.flush(FlushRequest("tag", "a"))
    assert (again.count, again.epoch) == (0, 1001)


class Failing(DictStore):
    """Its shared part is down from the start, or once entries are to be deleted."""

    async def count(self, name: str) -> int:
        raise StoreUnavailable("down")

    async def purge(self, name: str) -> int:
        raise StoreUnavailable("down")

    async def delete(self, digest: bytes) -> bool:
        raise StoreUnavailable("down")

    async def holds(self, digest: bytes) -> bool:
        raise StoreUnavailable("down")


class Unheard(MemoryEpochs):
    """Nobody else can be told."""

    async def raise_everywhere(self, name: str) -> int:
        self.raise_epoch(name)
        raise StoreUnavailable("down")


@pytest.mark.parametrize(
    ("epochs", "request_", "message", "acknowledged"),
    [
        pytest.param(Unheard, FlushRequest("all"), "in force on this replica alone", False, id="others-cannot-be-told"),
        pytest.param(Unheard, FlushRequest("all", background=True), "in force on this replica alone", False, id="nor-in-the-background"),
        pytest.param(MemoryEpochs, FlushRequest("all"), "in force on all replicas, but not all bytes", True, id="purge-fails"),
        pytest.param(MemoryEpochs, FlushRequest("all", dry_run=True), "nothing is flushed", False, id="dry-run"),
        pytest.param(MemoryEpochs, FlushRequest("key", "ab" * 32), "may still be found", False, id="key"),
        pytest.param(MemoryEpochs, FlushRequest("key", "ab" * 32, dry_run=True), "may still be found", False, id="dry-run-of-a-key"),
    ],
)
async def test_where_the_store_fails_the_flush_says_what_is_in_force(
    epochs: type[MemoryEpochs], request_: FlushRequest, message: str, acknowledged: bool
) -> None:
    made = epochs(clock=lambda: 1.0)
    with pytest.raises(FlushIncomplete, match=message) as raised:
        await Flusher(made, Failing(made)).flush(request_)
    assert (raised.value.acknowledged_seconds is not None) is acknowledged
    assert made.current(CACHE) == (1000 if request_.target == "all" and not request_.dry_run else 0)


async def test_a_flush_in_the_background_returns_before_bytes_are_deleted_and_says_when_they_are(caplog: pytest.LogCaptureFixture) -> None:
    store, flusher = await stocked()
    caplog.set_level(logging.INFO, "inference_cache_sidecar.flush")
    result = await flusher.flush(FlushRequest("tag", "a", background=True))
    assert (result.count, result.epoch, len(store.entries)) == (None, 1000, 4)
    assert await store.count(tag_epoch("a")) == 0, "but nothing is found any more"
    async with asyncio.timeout(10):
        while not caplog.messages:
            await asyncio.sleep(0)
    assert len(store.entries) == 2
    assert ": 2 entries deleted in the background, in " in caplog.text
    assert "tag a" not in caplog.text


async def test_a_purge_in_the_background_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    epochs = MemoryEpochs()
    await Flusher(epochs, Failing(epochs)).flush(FlushRequest("all", background=True))
    async with asyncio.timeout(10):
        while not caplog.messages:
            await asyncio.sleep(0)
    assert "flush of all: not all bytes are deleted" in caplog.text


async def test_flushes_are_purged_one_after_the_other_and_closing_ends_them_all() -> None:
    store, flusher = await stocked()
    purging: list[str] = []

    async def endless(name: str) -> int:
        purging.append(name)
        await asyncio.Event().wait()
        return 0

    store.purge = endless  # type: ignore[method-assign]  # to stay in the midst of a purge
    for tag in "ab":
        await flusher.flush(FlushRequest("tag", tag, background=True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert purging == ["tag:a"]
    await flusher.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
