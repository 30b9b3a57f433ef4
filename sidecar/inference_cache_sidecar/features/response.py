"""Feast's answer as columns of cells, each cell as upstream wrote it; and an answer made of cells. Pure.

Values are never read into numbers and written again: what JSON says of them goes out as it came in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecoder
from re import compile as pattern
from typing import Any, Final, TypeVar

import orjson

T = TypeVar("T")
Column = tuple[list[bytes], list[bytes], list[bytes]]
"""A column: values, statuses and event timestamps of all rows, each a JSON text."""
PRESENT: Final = b'"PRESENT"'
_SPACE: Final = pattern(r"[ \t\r\n]*")
_decoder = JSONDecoder()


@dataclass(frozen=True, slots=True)
class FeatureAnswer:
    names: tuple[str, ...]
    """Of the columns, all different: join keys and features, in upstream's order."""
    columns: tuple[Column, ...]


def split(body: bytes, count: int) -> FeatureAnswer | None:
    """Upstream's answer to a request for `count` rows; None where anything about it is not as it should be."""
    try:
        text = body.decode()
        found, end = _object(text, _skip(text, 0), {"metadata": _metadata, "results": _results})
        if _skip(text, end) != len(text):
            return None
    except (ValueError, RecursionError):
        return None
    names, columns = found["metadata"]["feature_names"], found["results"]
    if len(set(names)) != len(names) or len(names) != len(columns):
        return None
    if any(len(part) != count for column in columns for part in column):
        return None
    return FeatureAnswer(tuple(names), tuple(columns))


def merge(names: Sequence[str], rows: Iterable[Sequence[bytes]]) -> bytes:
    """An answer of these columns; a row holds the values of all columns, then their event timestamps, then their statuses."""
    width = len(names)
    joined = [b",".join(part) for part in zip(*rows, strict=True)]
    parts = zip(joined[:width], joined[2 * width :], joined[width : 2 * width], strict=True)
    results = b",".join([b'{"values":[%b],"statuses":[%b],"event_timestamps":[%b]}' % part for part in parts])
    return b'{"results":[%b],"metadata":{"feature_names":%b}}' % (results, orjson.dumps(names))


Reader = Callable[[str, int], tuple[T, int]]
"""Reads what begins at a place of the text; returns it and where it ends. Raises ValueError."""


def _metadata(text: str, at: int) -> tuple[dict[str, Any], int]:
    return _object(text, at, {"feature_names": lambda text, at: _array(text, at, _string)})


def _results(text: str, at: int) -> tuple[list[Column], int]:
    return _array(text, at, _column)


def _column(text: str, at: int) -> tuple[Column, int]:
    found, end = _object(text, at, {"values": _values, "statuses": _labels, "event_timestamps": _labels})
    return (found["values"], found["statuses"], found["event_timestamps"]), end


def _values(text: str, at: int) -> tuple[list[bytes], int]:
    return _array(text, at, _fragment)


def _labels(text: str, at: int) -> tuple[list[bytes], int]:
    return _array(text, at, _quoted)


def _fragment(text: str, at: int) -> tuple[bytes, int]:
    _, end = _decoder.raw_decode(text, at)
    return text[at:end].encode(), end


def _quoted(text: str, at: int) -> tuple[bytes, int]:
    _, end = _string(text, at)
    return text[at:end].encode(), end


def _string(text: str, at: int) -> tuple[str, int]:
    value, end = _decoder.raw_decode(text, at)
    if type(value) is not str:
        raise ValueError("no string")
    return value, end


def _array(text: str, at: int, item: Reader[T]) -> tuple[list[T], int]:
    items: list[T] = []
    at = _after(text, at, "[")
    if text.startswith("]", at):
        return items, at + 1
    while True:
        value, end = item(text, at)
        items.append(value)
        at = _skip(text, end)
        if text.startswith("]", at):
            return items, at + 1
        at = _after(text, at, ",")


def _object(text: str, at: int, members: Mapping[str, Reader[Any]]) -> tuple[dict[str, Any], int]:
    """An object with exactly these members."""
    found: dict[str, Any] = {}
    at = _after(text, at, "{")
    for number in range(len(members)):
        if number:
            at = _after(text, at, ",")
        name, end = _string(text, at)
        if name not in members or name in found:
            raise ValueError("another member")
        found[name], end = members[name](text, _after(text, _skip(text, end), ":"))
        at = _skip(text, end)
    return found, _after(text, at, "}", skip=False)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _after(text: str, at: int, mark: str, *, skip: bool = True) -> int:
    """Where the text goes on after `mark`."""
    if not text.startswith(mark, at):
        raise ValueError(f"no {mark!r}")
    return _skip(text, at + 1) if skip else at + 1
