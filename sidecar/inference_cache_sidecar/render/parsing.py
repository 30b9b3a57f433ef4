"""Parsing an answer of any size without holding up the event loop longer than need be."""

import gc
from typing import Any, Final

import orjson

_LARGE_BYTES: Final = 64 * 1024


def parsed(body: bytes) -> Any:
    """The parsed JSON. Raises orjson.JSONDecodeError.

    A large answer with logprobs becomes ten thousands of objects, none of them garbage: collections in between would
    take two to eight times as long as the parsing.
    """
    if len(body) < _LARGE_BYTES or not gc.isenabled():
        return orjson.loads(body)
    gc.disable()
    try:
        return orjson.loads(body)
    finally:
        gc.enable()
