"""The promise every store keeps."""

from dataclasses import dataclass
from typing import Protocol

from inference_cache_contract.entry import Entry
from inference_cache_sidecar.index.protocol import Neighbour, Vector


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Counters since start and sizes now; sizes in bytes."""

    entries: int
    vectors: int
    max_bytes: int
    used_bytes: int
    """All that the cap counts: entries, index, scopes, overhead."""
    entry_bytes: int
    """Bytes of entries (answers, prompts, vectors) that a lookup can reach."""
    stored: int
    evicted: int
    expired: int
    flushed: int
    refused: int
    """Entries too large, or worth less than what would have had to go for them."""


class EntryStore(Protocol):
    async def get(self, scope: bytes, digest: bytes, *, stale_seconds: float = 0.0) -> Entry | None:
        """The entry, if its epochs are current and it has not been expired for longer than `stale_seconds`."""
        ...

    async def peek(self, scope: bytes, digest: bytes) -> Entry | None:
        """As `get`, but not counted as a use."""
        ...

    def still(self, entry: Entry) -> bool:
        """Whether `get` would still give this very entry, its time apart; counts as a use. Never waits."""
        ...

    async def put(self, entry: Entry, vector: Vector | None) -> bool:
        """Keep `entry` (replacing one of the same digest) and, if given, its vector; False if it was refused."""
        ...

    async def delete(self, digest: bytes) -> bool:
        """False if there was none."""
        ...

    async def holds(self, digest: bytes) -> bool:
        """Whether `delete` would find one."""
        ...

    async def neighbours(self, scope: bytes, vector: Vector, limit: int) -> list[Neighbour]:
        """Nearest first, at most `limit`, of this scope alone."""
        ...

    async def count(self, name: str) -> int:
        """How many reachable entries are stamped with the epoch `name`: the dry run of a flush. Yields to the loop between batches."""
        ...

    async def purge(self, name: str) -> int:
        """Delete the bytes of all entries that raising the epoch `name` has made unreachable, and of whatever else cannot be served.

        In batches that yield to the loop. Returns how many a flush, of whatever name, had made unreachable.
        """
        ...

    def stats(self) -> StoreStats: ...
