"""Streams of records: written by the holder of a lease, read by who waits for it.

Records are numbered from 1, sealed, and bound to their stream and number: nothing can be put between, left out or repeated unseen.
"""

from collections.abc import Sequence
from typing import Any, Final

from inference_cache_sidecar.coalescing import scripts
from inference_cache_sidecar.coalescing.records import GarbledError, Item, decode, encode
from inference_cache_sidecar.coalescing.terms import Terms
from inference_cache_sidecar.shared.calls import Calls
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.sealing import Sealer, Unsealable

READ_AT_ONCE: Final = 64
_FIELD: Final = b"r"


class Streams:
    def __init__(self, hot: HotCalls, calls: Calls, sealer: Sealer, terms: Terms) -> None:
        self._hot = hot
        self._calls = calls
        self._sealer = sealer
        self._terms = terms

    async def append(self, stream: bytes, number: int, items: Sequence[Item], kept: int) -> None:
        """Safe to repeat. Raises StoreError."""
        record = self._sealer.seal(_place(stream, number), encode(items))
        ms = int(self._terms.stream_seconds * 1000)
        await self._hot.run([(stream, (b"EVAL", scripts.APPEND, 1, stream, number, record, kept, ms))])

    async def read(self, stream: bytes, after: int, *, wait: bool) -> list[list[Item]]:
        """The records after that number, empty if there are none, with `wait` none for a while. Raises StoreError, GarbledError."""
        block = int(self._terms.block_seconds * 1000) if wait else None
        seconds = self._terms.slack_seconds + (self._terms.block_seconds if wait else 0.0)
        reply = await self._calls(lambda client: client.xread({stream: f"{after}-0"}, count=READ_AT_ONCE, block=block), seconds)
        found = _entries(reply)
        return [self._items(stream, after + place, *entry) for place, entry in enumerate(found, start=1)]

    def _items(self, stream: bytes, number: int, name: bytes, fields: dict[bytes, bytes]) -> list[Item]:
        if name != b"%d-0" % number or _FIELD not in fields:
            raise GarbledError("a record is missing, or is none")
        try:
            return decode(self._sealer.unseal(_place(stream, number), fields[_FIELD]))
        except Unsealable as error:
            raise GarbledError("a record that was not sealed by us") from error


def _place(stream: bytes, number: int) -> bytes:
    return stream + b":%d" % number


def _entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Of the one stream that was asked for; redis-py gives its entries as (id, fields)."""
    found: list[tuple[bytes, dict[bytes, bytes]]] = reply[0][1] if reply else []
    return found
