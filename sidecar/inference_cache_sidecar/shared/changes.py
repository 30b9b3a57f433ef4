"""What other replicas stored and deleted, followed: so that every replica finds by similarity what any has stored.

`tell` writes to a capped stream, `follow` reads it and hands on what concerns this replica. After a gap (the stream was trimmed, or
is a younger one) everything is read from the store again, as at the start.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.link import Command

CHANGES_KEPT: Final = 50_000
AT_ONCE: Final = 500
UNTOLD: Final = 10_000
"""Changes kept for a store that does not take them; beyond, entries are found by equality alone."""
BLOCK_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 0.5
Kind = Literal["stored", "deleted"]
_BEGINNING: Final = b"0-0"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    kind: Kind
    key: bytes
    """Of the entry."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What a reader of the stream does with what it finds."""

    reload: Callable[[], Awaitable[None]]
    """Take in everything that is in the store."""
    apply: Callable[[Sequence[Change]], Awaitable[None]]


class Changes:
    def __init__(self, calls: Calls, hot: HotCalls, keys: Keyspace, replica: str) -> None:
        self._calls = calls
        self._hot = hot
        self._untold: deque[Change] = deque(maxlen=UNTOLD)
        self._key = keys.changes()
        self._replica = replica.encode()
        self._seen = _BEGINNING
        self._loaded = False

    async def tell(self, *changes: Change) -> None:
        """What the store does not take is told later."""
        commands: list[tuple[bytes, Command]] = [(self._key, self._command(change)) for change in changes]
        try:
            await self._hot.run(commands)
        except StoreError:
            self._untold.extend(changes)

    def _command(self, change: Change) -> Command:
        fields = (b"k", change.kind, b"e", change.key, b"r", self._replica)
        return (b"XADD", self._key, b"MAXLEN", b"~", CHANGES_KEPT, b"*", *fields)

    def load_again(self) -> None:
        """Everything in the store is to be looked at anew, soon."""
        self._loaded = False

    async def follow(self, followed: Followed) -> None:
        """Never ends by itself."""
        while True:
            try:
                if not self._loaded or await self._has_gap():
                    await self._load(followed)
                await self._tell_again()
                await self._read_on(followed)
            except StoreError as error:
                _log.debug("the changes in the shared store cannot be followed: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _tell_again(self) -> None:
        untold = list(self._untold)
        self._untold.clear()
        if untold:
            await self.tell(*untold)

    async def _load(self, followed: Followed) -> None:
        """What is told to be loaded again meanwhile is, afterwards."""
        self._loaded = True
        try:
            self._seen = await self._last()
            await followed.reload()
        except StoreError:
            self._loaded = False
            raise

    async def _read_on(self, followed: Followed) -> None:
        """Until the store fails, a moment has passed without a change, or all is to be loaded again."""
        block = int(BLOCK_SECONDS * 1000)
        while self._loaded:
            found: Any = await self._calls(
                lambda client: client.xread({self._key: self._seen}, block=block, count=AT_ONCE), BLOCK_SECONDS + SLOW_SECONDS
            )
            if not found:
                return
            records = found[0][1]
            await followed.apply([change for _, fields in records if (change := self._change(fields)) is not None])
            self._seen = records[-1][0]

    def _change(self, fields: dict[bytes, bytes]) -> Change | None:
        """None for this replica's own, and for what is no change."""
        kind, key = fields.get(b"k"), fields.get(b"e")
        if fields.get(b"r") == self._replica or key is None:
            return None
        return Change("stored", key) if kind == b"stored" else Change("deleted", key) if kind == b"deleted" else None

    async def _last(self) -> bytes:
        return (await self._info())[1]

    async def _has_gap(self) -> bool:
        """Whether changes after the last one seen here may be gone."""
        first, last = await self._info()
        return _ordinal(last) < _ordinal(self._seen) or _ordinal(first) > _ordinal(self._seen) > (0, 0)

    async def _info(self) -> tuple[bytes, bytes]:
        """The ids of the first change that is kept, and of the last one ever told."""
        if not await self._calls(lambda client: client.exists(self._key), SLOW_SECONDS):
            return _BEGINNING, _BEGINNING
        info: Any = await self._calls(lambda client: client.xinfo_stream(self._key), SLOW_SECONDS)
        first = info.get("first-entry")
        return (first[0] if first else _BEGINNING), info["last-generated-id"]


def _ordinal(stream_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = stream_id.partition(b"-")
    return int(milliseconds or 0), int(sequence or 0)
