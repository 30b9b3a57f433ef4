"""What the holder of a lease tells in its stream, as bytes. Pure.

A record is a run of frames: one byte of kind, four of length, the content. Bytes that are none raise `GarbledError`, never anything else.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Any, Final

from inference_cache_contract.entry import Entry
from inference_cache_contract.wire import WireError, pack, unpack
from inference_cache_sidecar.query.model import Rendition

_FRAME: Final = Struct("<BI")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSENDABLE: Final = re.compile(r"[\r\n\0]")


class GarbledError(ValueError):
    """These bytes are not what a holder writes."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of upstream's answer, and whose call it was."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    """Those that belong to the answer."""
    events: bool
    """The parts are SSE events, each one whole."""
    credential: bytes
    rendition: Rendition
    """As upstream was asked for."""


@dataclass(frozen=True, slots=True)
class End:
    """The answer is whole."""

    entry: Entry | None
    """As it was stored, if it was."""


class Stop(Enum):
    """There will be no more."""

    GIVEN_UP = "given up"
    """The call, not by upstream's fault: somebody else may ask."""
    FAILED = "failed"
    """Upstream gave no answer, or broke off in it: each replica has its own upstream to ask."""


Item = Head | bytes | End | Stop
"""Parts of the body are plain bytes."""

_HEAD, _PART, _END, _GIVEN_UP, _FAILED = range(1, 6)
_STOPS: Final = {_GIVEN_UP: Stop.GIVEN_UP, _FAILED: Stop.FAILED}
_STOP_KINDS: Final = {stop: kind for kind, stop in _STOPS.items()}


def encode(items: Iterable[Item]) -> bytes:
    return b"".join(_FRAME.pack(kind, len(content)) + content for kind, content in map(_frame, items))


def decode(record: bytes) -> list[Item]:
    """Raises GarbledError."""
    return [_item(kind, content) for kind, content in _frames(record)]


def _frame(item: Item) -> tuple[int, bytes]:
    match item:
        case bytes():
            return _PART, item
        case Head():
            return _HEAD, _packed_head(item)
        case End(entry):
            return _END, _packed_entry(entry)
        case Stop():
            return _STOP_KINDS[item], b""


def _packed_head(head: Head) -> bytes:
    rendition = head.rendition
    wishes = [rendition.stream, rendition.include_usage, rendition.continuous_usage]
    # Not orjson: headers may carry bytes that are no text, as surrogates.
    return json.dumps([head.status, head.reason, head.headers, head.events, head.credential.hex(), wishes]).encode()


def _packed_entry(entry: Entry | None) -> bytes:
    try:
        return b"" if entry is None else pack(entry)
    except WireError:
        return b""


def _frames(record: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(record):
        start = at + _FRAME.size
        if start > len(record):
            raise GarbledError("a frame is cut off")
        kind, length = _FRAME.unpack_from(record, at)
        at = start + length
        if at > len(record):
            raise GarbledError("a frame's content is cut off")
        yield kind, record[start:at]


def _item(kind: int, content: bytes) -> Item:
    if kind == _PART:
        return content
    if kind == _HEAD:
        return _head(content)
    if kind == _END:
        return End(_entry(content))
    if kind in _STOPS and not content:
        return _STOPS[kind]
    raise GarbledError("a frame of no known kind")


def _entry(content: bytes) -> Entry | None:
    try:
        return unpack(content) if content else None
    except WireError as error:
        raise GarbledError("an entry that is none") from error


def _head(content: bytes) -> Head:
    try:
        status, reason, headers, events, credential, wishes = json.loads(content)
        stream, include_usage, continuous_usage = wishes
        head = Head(
            status=_checked(int, status),
            reason=_sendable(reason),
            headers=tuple((_name(name), _sendable(value)) for name, value in headers),
            events=_checked(bool, events),
            credential=bytes.fromhex(_checked(str, credential)),
            rendition=Rendition(_checked(bool, stream), _checked(bool, include_usage), _checked(bool, continuous_usage)),
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise GarbledError("a head that is none") from error
    if not 200 <= head.status <= 599:
        raise GarbledError("a status that is none")
    return head


def _checked(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise GarbledError("a value of another type")
    return value


def _name(value: Any) -> str:
    name: str = _checked(str, value)
    if _TOKEN.fullmatch(name) is None:
        raise GarbledError("a header's name that is none")
    return name


def _sendable(value: Any) -> str:
    text: str = _checked(str, value)
    if _UNSENDABLE.search(text):
        raise GarbledError("text that no header can carry")
    return text
