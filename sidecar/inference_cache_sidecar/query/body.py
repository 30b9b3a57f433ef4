"""A request's body as JSON: read as the model server would read it, and written so that equal requests are equal bytes.

The parser and the item splitter call it; nothing else in the sidecar looks into request bodies. Pipeline and flights ask
whether a body, or an answer, can be read without holding up others.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

import orjson

Json = dict[str, Any]

_NEVER_LABORIOUS_BYTES: Final = 64 * 1024
MOST_LABOUR: Final = 131_072
"""Measured: 3 to 6 ms, parsing and canonical form together; a unit is about one number of a list."""
MOST_LABOUR_OF_ANSWERS: Final = 3 * MOST_LABOUR
"""Answers are read once, or taken apart into events once a replay."""

TooDeep = orjson.JSONEncodeError
"""Raised by the writing functions for a body nested deeper than any real request (254 levels)."""


def load(body: bytes) -> Json | None:
    """The JSON object in `body`; None for anything else, and for what the model server would read otherwise than we do.

    Of duplicate keys the last one counts, as with Python's own reader. NaN, lone surrogates, a byte order mark and
    invalid UTF-8 are refused here though a model server may take them: such a request is passed on uncached.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(value) is not dict or (_LONG in body.translate(_DIGITS) and not _integers_fit(body)):
        return None
    return value


def is_laborious(body: bytes, most: int = MOST_LABOUR) -> bool:
    """Whether reading it would hold up everybody else: a mebibyte of text is read in a millisecond, one of tiny members in thirty.

    Counts what reading takes time for, by its bytes alone; text that is full of them is taken for laborious too.
    """
    if len(body) <= _NEVER_LABORIOUS_BYTES:
        return False
    containers = body.count(b"[") + body.count(b"{")
    return body.count(b",") + 4 * body.count(b'":') + 3 * containers > most


def stable(value: object) -> bytes:
    """One line of JSON in which the order of keys does not show."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def as_written(value: object) -> bytes:
    """One line of JSON with keys in the order they came in."""
    return orjson.dumps(value)


def determinants(shape: bytes, body: Json, origin: str) -> bytes:
    """Everything of a request but its prompt; consumes `body`.

    `shape` says how the prompt was singled out. Lines of JSON hold no line feed, so four joined lines stay apart.
    """
    ordered = take(body, _ORDER_COUNTS) if not _ORDER_COUNTS.isdisjoint(body) else None
    return b"\n".join((shape, stable(body), as_written(ordered) if ordered else b"", origin.encode("utf-8", "surrogateescape")))


def take(body: Json, names: Iterable[str]) -> Json:
    """Remove the fields that are there and return them, in the order of their names."""
    return {name: body.pop(name) for name in sorted(names) if name in body}


_ORDER_COUNTS: Final = frozenset(
    {
        "chat_template_kwargs",
        "documents",
        "functions",
        "output_config",
        "response_format",
        "structured_outputs",
        "text",
        "tools",
    }
)
"""Free objects that are written into the prompt, or whose properties are generated in their order."""

_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG: Final = b"0" * 19
"""Every integer outside 64 bits has at least 19 digits; the fast reader would turn it into a float and merge neighbours."""


def _integers_fit(body: bytes) -> bool:
    try:
        json.loads(body, parse_int=_fitting)
    except (ValueError, RecursionError):
        return False
    return True


def _fitting(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**64:
        raise ValueError
    return value
