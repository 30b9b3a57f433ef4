"""Flushes: makes entries unreachable at once, then deletes their bytes. The admin port and events order them."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Literal, assert_never

from inference_cache_contract.epochs import CACHE, Epochs, adapter_epoch, category_epoch, tag_epoch, version_epoch
from inference_cache_contract.keyspace import name_digest
from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.store.protocol import EntryStore
from inference_cache_sidecar.tasks import ended

Target = Literal["all", "version", "tag", "category", "adapter", "key"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FlushRequest:
    """`value` names the version, tag, category or adapter, is the key in hexadecimal, or is empty for all."""

    target: Target
    value: str = ""
    dry_run: bool = False
    background: bool = False
    """Do not wait for the bytes to be deleted. Keys are deleted at once in any case."""


@dataclass(frozen=True, slots=True)
class FlushResult:
    count: int | None
    """Entries deleted, or that would be; None while they are being deleted in the background."""
    epoch: int | None
    """The epoch's value now; None for a key, which has none."""
    acknowledged_seconds: float | None = None
    """How long it took until no replica served any more what was there before. None for a dry run, and for a key: others drop that
    as soon as they read of it, and nobody waits for them."""


class FlushIncomplete(StoreError):
    """The shared store failed within a flush; the message says what is in force. To order the flush again does no harm."""

    def __init__(self, message: str, epoch: int | None = None, acknowledged_seconds: float | None = None) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.acknowledged_seconds = acknowledged_seconds
        """None: not acknowledged."""


class Flusher:
    """Several flushes at once are purged one after the other, each counting what is left for it."""

    def __init__(self, epochs: Epochs, store: EntryStore) -> None:
        self._epochs = epochs
        self._store = store
        self._purging = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._waiting: set[str] = set()
        """Epochs whose entries are to be deleted in the background, and whose turn has not come."""

    async def flush(self, request: FlushRequest) -> FlushResult:
        """When this returns, nothing stored before the call is found any more. Raises FlushIncomplete, and ValueError for a key that is
        none."""
        name = epoch_name(request)
        if name is None:
            return await self._flush_key(bytes.fromhex(request.value), request.dry_run)
        if request.dry_run:
            return await self._foreseen(name)
        epoch, seconds = await self._raised(name)
        if request.background:
            self.purge_later(request)
            return FlushResult(None, epoch, seconds)
        try:
            return FlushResult(await self._purged(name), epoch, seconds)
        except StoreError as error:
            told = "in force on all replicas, but not all bytes are deleted; the rest cannot be found, and expires"
            raise FlushIncomplete(f"{told} ({error})", epoch, seconds) from error

    async def raise_everywhere(self, request: FlushRequest) -> tuple[int, float]:
        """The first half of a flush, of all but a key: the new epoch, and how many seconds it took until no replica served what was
        there before. Raises FlushIncomplete."""
        return await self._raised(_named(request))

    async def purge(self, request: FlushRequest) -> int:
        """The second half: how many entries were deleted. To be repeated where it broke off. Raises StoreError."""
        return await self._purged(_named(request))

    def purge_later(self, request: FlushRequest) -> None:
        """Delete the bytes of what was flushed, in the background; once, where the same waits for its turn already."""
        name = epoch_name(request)
        if name is None or name in self._waiting:
            return
        self._waiting.add(name)
        task = asyncio.create_task(self._purge_and_say(described(request), name))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Give up what is being deleted in the background: it cannot be found any more, and expires."""
        await ended(self._background)

    async def _flush_key(self, digest: bytes, dry_run: bool) -> FlushResult:
        try:
            found = await self._store.holds(digest) if dry_run else await self._store.delete(digest)
        except StoreError as error:
            raise FlushIncomplete(f"the key may still be found ({error})") from error
        return FlushResult(int(found), None)

    async def _foreseen(self, name: str) -> FlushResult:
        try:
            return FlushResult(await self._store.count(name), self._epochs.current(name))
        except StoreError as error:
            raise FlushIncomplete(f"nothing is flushed, and the entries cannot be counted ({error})") from error

    async def _raised(self, name: str) -> tuple[int, float]:
        """The new epoch, and how many seconds it took until all replicas knew of it."""
        begun = time.perf_counter()
        try:
            epoch = await self._epochs.raise_everywhere(name)
        except StoreError as error:
            told = "in force on this replica alone; the others are told as soon as the shared store answers"
            raise FlushIncomplete(f"{told} ({error})", self._epochs.current(name)) from error
        return epoch, time.perf_counter() - begun

    async def _purged(self, name: str) -> int:
        async with self._purging:
            self._waiting.discard(name)
            return await self._store.purge(name)

    async def _purge_and_say(self, what: str, name: str) -> None:
        begun = time.perf_counter()
        try:
            count = await self._purged(name)
        except StoreError as error:
            _log.warning("flush of %s: not all bytes are deleted; the rest cannot be found, and expires (%s)", what, error)
        else:
            _log.info("flush of %s: %d entries deleted in the background, in %.1f s", what, count, time.perf_counter() - begun)


def epoch_name(request: FlushRequest) -> str | None:
    """The epoch to raise; None for a key, which has none."""
    match request.target:
        case "key":
            return None
        case "all":
            return CACHE
        case "version":
            return version_epoch(request.value)
        case "tag":
            return tag_epoch(request.value)
        case "category":
            return category_epoch(request.value)
        case "adapter":
            return adapter_epoch(request.value)
        case _:
            assert_never(request.target)


def _named(request: FlushRequest) -> str:
    name = epoch_name(request)
    if name is None:
        raise ValueError("a key has no epoch")
    return name


def described(request: FlushRequest) -> str:
    """For the log, on one line. Tags and keys may tell of people: they are shown by the digest that the shared store has for them."""
    match request.target:
        case "all":
            return "all"
        case "tag":
            return f"tag {name_digest(tag_epoch(request.value))}"
        case "key":
            return f"key {name_digest(request.value)}"
        case _:
            return f"{request.target} {request.value!r}"
