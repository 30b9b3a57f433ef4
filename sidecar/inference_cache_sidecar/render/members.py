"""The members of a JSON object's text with their places, so that one can be replaced and the rest left as written.

Used where re-serialising would not keep what was said: integers beyond 64 bits, floats, key order, white space.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
_decoder = JSONDecoder()


@dataclass(frozen=True, slots=True)
class Member:
    """`text[start:end]` is the value as written."""

    key: str
    value: Any
    start: int
    end: int


def members(text: str) -> Iterator[Member]:
    """In the order written. Raises ValueError where `text` is no JSON object."""
    at = _expect(text, 0, "{")
    if text.startswith("}", at):
        return
    while True:
        key, at = _decoder.raw_decode(text, at)
        if not isinstance(key, str):
            raise ValueError("a member's name is no string")
        start = _expect(text, at, ":")
        value, end = _decoder.raw_decode(text, start)
        yield Member(key, value, start, end)
        at = _skip(text, end)
        if text.startswith("}", at):
            return
        at = _expect(text, at, ",")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _expect(text: str, at: int, mark: str) -> int:
    """Where the text goes on after `mark`."""
    at = _skip(text, at)
    if not text.startswith(mark, at):
        raise ValueError(f"no {mark!r} at {at}")
    return _skip(text, at + 1)
