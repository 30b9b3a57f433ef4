"""Entries in the shared store: by key, for one model version. The tiered store calls; nothing here raises but StoreError."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from inference_cache_contract import wire
from inference_cache_contract.entry import Entry
from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.sealing import Unsealable
from inference_cache_sidecar.shared.values import Values

Found = tuple[Entry, Vector | None]
PATIENT_SECONDS: Final = 1.0
"""Deadline of reads that no client waits for."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class EntryCounts:
    """Since start."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    failed: int = 0
    unreadable: int = 0


class SharedEntries:
    """`version` is the model's: what other versions stored is never read. `stale_seconds`: how long past its time an entry is kept."""

    def __init__(
        self, hot: HotCalls, keys: Keyspace, values: Values, version: str, stale_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._hot = hot
        self._values = values
        self._prefix = keys.entries_of(version).removesuffix(b"*")
        self.stale_seconds = stale_seconds
        self._clock = clock
        self.counts = EntryCounts()

    def key(self, scope: bytes, digest: bytes) -> bytes:
        """As `Keyspace.entry`, without quoting the same names again and again."""
        return b"%b%b:%b" % (self._prefix, scope[:16].hex().encode(), digest.hex().encode())

    async def get(self, scope: bytes, digest: bytes) -> Found | None:
        """None also where the store fails, or holds something else than an entry."""
        key = self.key(scope, digest)
        try:
            sealed = await self._hot.get(key)
        except StoreError:
            self.counts.failed += 1
            return None
        found = None if sealed is None else self.read(key, sealed)
        if found is None or found[0].scope != scope:
            self.counts.misses += 1
            return None
        self.counts.hits += 1
        return found

    async def get_many(self, keys: Sequence[bytes]) -> list[Found | None]:
        """Raises StoreError."""
        return [self.read(key, sealed) for key, sealed in await self.fetch(keys)]

    async def fetch(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """What lies under those keys that are there, for `read`. Raises StoreError."""
        replies = await self._hot.run([(key, (b"GET", key)) for key in keys], PATIENT_SECONDS)
        return [(key, reply) for key, reply in zip(keys, replies, strict=True) if isinstance(reply, bytes)]

    async def put(self, entry: Entry, vector: Vector | None) -> bytes | None:
        """The key it was stored under; None if it was not."""
        ttl_seconds = entry.created + entry.ttl_seconds + self.stale_seconds - self._clock()
        if ttl_seconds <= 0:
            return None
        key = self.key(entry.scope, entry.digest)
        try:
            await self._hot.set(key, self._values.write(key, entry, vector), ttl_seconds)
        except wire.WireError:
            return None
        except StoreError:
            self.counts.failed += 1
            return None
        self.counts.stored += 1
        return key

    def read(self, key: bytes, sealed: bytes) -> Found | None:
        """None for what is no entry."""
        try:
            return self._values.read(key, sealed)
        except Unsealable as error:
            self.counts.unreadable += 1
            _log.debug("an entry in the shared store cannot be read: %s", error)
            return None
