"""An answer as an envelope and its elements, and back.

Embeddings are long lists of numbers and come by the thousand: their elements are cut out and put back as bytes, unread.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.items.usage import is_countable

ELEMENTS: Final = {Endpoint.EMBEDDINGS: "data", Endpoint.CLASSIFY: "data", Endpoint.SCORE: "data", Endpoint.RERANK: "results"}
"""The field of an answer that holds one element an item."""

Element = dict[str, Any] | bytes
"""Read, or as bytes without its index: what follows `{"index":N,`."""


@dataclass(frozen=True, slots=True)
class Answer:
    envelope: dict[str, Any]
    """All but the elements; their field is there, to keep its place."""
    elements: list[Element]
    """By index: the one that belongs to the first item comes first."""


def read(endpoint: Endpoint, answer: bytes) -> Answer | None:
    """None if it is not an answer of this endpoint with an index on every element, 0 to n - 1."""
    if endpoint is Endpoint.EMBEDDINGS:
        cut = _cut(answer)
        if cut is not None:
            return cut
    try:
        envelope = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    if type(envelope) is not dict or not is_countable(envelope.get("usage")):
        return None
    elements = _by_index(envelope.get(ELEMENTS[endpoint]))
    return None if elements is None else Answer(envelope, elements)


def written(endpoint: Endpoint, envelope: dict[str, Any], elements: list[tuple[int, Element]]) -> bytes:
    """The answer with these elements, in this order, each under the index given."""
    return orjson.dumps({**envelope, ELEMENTS[endpoint]: [_indexed(index, element) for index, element in elements]})


def _indexed(index: int, element: Element) -> object:
    if isinstance(element, bytes):
        return orjson.Fragment(b'{"index":%d,%b' % (index, element))
    return {**element, "index": index}


def _by_index(elements: object) -> list[Element] | None:
    if type(elements) is not list or not all(type(element) is dict and type(element.get("index")) is int for element in elements):
        return None
    ordered = sorted(elements, key=lambda element: element["index"])
    return ordered if [element["index"] for element in ordered] == list(range(len(ordered))) else None


_START: Final = b'"data":['


def _cut(answer: bytes) -> Answer | None:
    """The compact form that vLLM writes: flat elements in order, no braces inside. Anything else is None, and read properly."""
    start = answer.find(_START) + len(_START)
    place, elements = start, list[Element]()
    while answer.startswith(opening := b'{"index":%d,' % len(elements), place):
        end = answer.find(b"}", place)
        if end < 0 or answer.find(b"{", place + 1, end) >= 0:
            return None
        elements.append(answer[place + len(opening) : end + 1])
        place = end + 2
        if answer[end + 1 : place] == b"]":
            return _enclosed(answer[:start] + answer[end + 1 :], elements)
    return None


def _enclosed(rest: bytes, elements: list[Element]) -> Answer | None:
    try:
        envelope = orjson.loads(rest)
    except orjson.JSONDecodeError:
        return None
    whole = type(envelope) is dict and envelope.get("data") == [] and is_countable(envelope.get("usage"))
    return Answer(envelope, elements) if whole else None
