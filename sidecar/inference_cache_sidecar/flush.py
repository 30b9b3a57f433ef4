"""Flushes: makes entries unreachable at once, then deletes their bytes. The admin port orders them."""

import asyncio
from dataclasses import dataclass
from typing import Literal, assert_never

from inference_cache_contract.epochs import CACHE, Epochs, category_epoch, tag_epoch, version_epoch
from inference_cache_sidecar.store.protocol import EntryStore

Target = Literal["all", "version", "tag", "category", "key"]


@dataclass(frozen=True, slots=True)
class FlushRequest:
    """`value` names the version, tag or category, is the key in hexadecimal, or is empty for all."""

    target: Target
    value: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class FlushResult:
    count: int
    """Entries flushed, or that would be."""
    epoch: int | None
    """The epoch's value now; None for a key, which has none."""


class Flusher:
    """Several flushes at once are purged one after the other, each counting what is left for it."""

    def __init__(self, epochs: Epochs, store: EntryStore) -> None:
        self._epochs = epochs
        self._store = store
        self._purging = asyncio.Lock()

    async def flush(self, request: FlushRequest) -> FlushResult:
        """When this returns, nothing stored before the call is found any more. Raises ValueError for a key that is none."""
        match request.target:
            case "key":
                return await self._flush_key(bytes.fromhex(request.value), request.dry_run)
            case "all":
                return await self._flush_epoch(CACHE, request.dry_run)
            case "version":
                return await self._flush_epoch(version_epoch(request.value), request.dry_run)
            case "tag":
                return await self._flush_epoch(tag_epoch(request.value), request.dry_run)
            case "category":
                return await self._flush_epoch(category_epoch(request.value), request.dry_run)
            case _:
                assert_never(request.target)

    async def _flush_key(self, digest: bytes, dry_run: bool) -> FlushResult:
        found = await self._store.holds(digest) if dry_run else await self._store.delete(digest)
        return FlushResult(int(found), None)

    async def _flush_epoch(self, name: str, dry_run: bool) -> FlushResult:
        if dry_run:
            return FlushResult(await self._store.count(name), self._epochs.current(name))
        epoch = await self._epochs.raise_everywhere(name)
        async with self._purging:
            return FlushResult(await self._store.purge(name), epoch)
