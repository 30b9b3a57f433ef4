"""Deletes the bytes of what a flush made unreachable, in the shared store: in batches, with progress, by one replica at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from inference_cache_contract.entry import Entry
from inference_cache_contract.epochs import CACHE, Epochs, version_epoch
from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.errors import StoreError, StoreRefused
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls
from inference_cache_sidecar.shared.entries import SharedEntries
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.scanning import batches
from inference_cache_sidecar.tasks import ended

LEASE_SECONDS: Final = 30.0
WAIT_SECONDS: Final = 0.5
READ_AT_ONCE: Final = 10
"""Entries decoded before the event loop is given way to."""
_VERSION: Final = version_epoch("")


@dataclass(slots=True)
class Purge:
    """One purge and how far it is."""

    name: str
    """The epoch that was raised; tags and entities by their family alone."""
    scanned: int = 0
    deleted: int = 0
    done: bool = False
    seconds: float = 0.0


class Purger:
    def __init__(
        self, calls: Calls, hot: HotCalls, keys: Keyspace, entries: SharedEntries, epochs: Epochs, clock: Callable[[], float]
    ) -> None:
        """Entries age by `clock`."""
        self._clock = clock
        self._calls = calls
        self._hot = hot
        self._keys = keys
        self._entries = entries
        self._epochs = epochs
        self.latest: Purge | None = None

    async def purge(self, name: str) -> int:
        """How many entries of the shared store were deleted. Raises StoreError."""
        purge = self.latest = Purge(name if name.startswith((CACHE, _VERSION)) else name.partition(":")[0])
        begun = time.monotonic()
        async with self._alone(name):
            async for keys in batches(self._calls.servers, self._pattern(name)):
                purge.scanned += len(keys)
                gone = keys if name.startswith(_VERSION) else await self._unreachable(keys, name)
                purge.deleted += await self._hot.delete_many(gone)
                purge.seconds = time.monotonic() - begun
        purge.done = True
        return purge.deleted

    async def count(self, name: str) -> int:
        """How many reachable entries are stamped with `name`. Raises StoreError."""
        found = 0
        async for keys in batches(self._calls.servers, self._pattern(name)):
            for entry in await self._read(keys):
                stamped = dict(entry.stamps)
                current = await self._epochs.stamps([stamp for stamp, _ in entry.stamps])
                found += name in stamped and current == entry.stamps and not entry.expired(self._clock())
        return found

    def _pattern(self, name: str) -> bytes:
        return self._keys.entries_of(name.removeprefix(_VERSION)) if name.startswith(_VERSION) else self._keys.all_entries()

    async def _unreachable(self, keys: Sequence[bytes], name: str) -> list[bytes]:
        current = self._epochs.current(name)
        if current is None:
            return []
        old = {entry.digest.hex().encode() for entry in await self._read(keys) if dict(entry.stamps).get(name, current) != current}
        return [key for key in keys if key.rpartition(b":")[2] in old]

    async def _read(self, keys: Sequence[bytes]) -> list[Entry]:
        entries: list[Entry] = []
        fetched = await self._entries.fetch(keys)
        for start in range(0, len(fetched), READ_AT_ONCE):
            entries += [found[0] for item in fetched[start : start + READ_AT_ONCE] if (found := self._entries.read(*item)) is not None]
            await asyncio.sleep(0)
        return entries

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """Two replicas that purge the same take turns; the second finds little left."""
        key = self._keys.purge_lease(name)
        while not await self._lease(key):  # noqa: ASYNC110  the event is in the store
            await asyncio.sleep(WAIT_SECONDS)
        renewing = asyncio.create_task(self._renew(key))
        try:
            yield
        finally:
            await ended([renewing])
            with suppress(StoreError):
                await self._calls(lambda client: client.unlink(key), SLOW_SECONDS)

    async def _lease(self, key: bytes) -> bool:
        """A store too full for a lease has all the more use for a purge."""
        try:
            return bool(await self._calls(lambda client: client.set(key, b"1", nx=True, px=int(LEASE_SECONDS * 1000)), SLOW_SECONDS))
        except StoreRefused:
            return True

    async def _renew(self, key: bytes) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            with suppress(StoreError):
                await self._calls(lambda client: client.pexpire(key, int(LEASE_SECONDS * 1000)), SLOW_SECONDS)
