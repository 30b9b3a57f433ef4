"""A request's body as JSON: read as the model server would read it, and written so that equal requests are equal bytes.

The parser and the item splitter call it; nothing else in the sidecar looks into request bodies.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

import orjson

Json = dict[str, Any]

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
