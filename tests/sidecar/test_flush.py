import pytest

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_contract.epochs import CACHE, Epochs, Stamp, category_epoch, reachable, tag_epoch, version_epoch
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.flush import Flusher, FlushRequest, FlushResult
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
    for number, names in enumerate([[], [tag_epoch("a")], [tag_epoch("a"), category_epoch("pricing")], [tag_epoch("b")]]):
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
    assert await flusher.flush(FlushRequest("tag", "a")) == FlushResult(0, 1001)
