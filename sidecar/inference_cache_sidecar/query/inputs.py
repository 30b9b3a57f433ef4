"""What the endpoints without a conversation are asked about: a text, tokens, a pair, a list of them.

The parser takes it as a whole; the item splitter makes single-item requests that come out here as the same query.
"""

from typing import Final

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.query.body import Json, take

PAIRS: Final = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
"""The four spellings of a score request."""

INPUTS: Final[dict[Endpoint, tuple[str, ...]]] = {
    Endpoint.CHAT: ("messages",),
    Endpoint.RESPONSES: ("input",),
    Endpoint.MESSAGES: ("messages",),
    Endpoint.COMPLETIONS: ("prompt", "prompt_embeds"),
    Endpoint.EMBEDDINGS: ("input", "messages"),
    Endpoint.CLASSIFY: ("input", "messages"),
    Endpoint.RERANK: ("query", "documents"),
    Endpoint.SCORE: ("data_1", "data_2", "documents", "items", "queries", "text_1", "text_2"),
    Endpoint.TOKENIZE: ("messages", "prompt"),
}

_LISTED: Final[dict[Endpoint, frozenset[str]]] = {
    Endpoint.EMBEDDINGS: frozenset({"input"}),
    Endpoint.CLASSIFY: frozenset({"input"}),
    Endpoint.RERANK: frozenset({"documents"}),
    Endpoint.SCORE: frozenset(INPUTS[Endpoint.SCORE]),
}
"""Fields in which a list of one item and the bare item are the same question."""


def take_inputs(endpoint: Endpoint, body: Json) -> Json:
    """Remove what is asked about and return it by field; empty if there is none."""
    taken = take(body, INPUTS[endpoint])
    for name in _LISTED.get(endpoint, _NONE).intersection(taken):
        taken[name] = bare(taken[name])
    if endpoint is Endpoint.RERANK and "documents" in taken:
        _drop_idle_top_n(body, taken["documents"])
    return taken


def bare(value: object) -> object:
    """The item of a list of one."""
    if type(value) is list and len(value) == 1 and is_item(value[0]):
        return value[0]
    return value


def is_item(value: object) -> bool:
    """A text, a text as token ids, or (score, rerank) an object of content parts; not a chat message."""
    if type(value) is list:
        # As a set of types: several times as fast as one by one, and a list may hold a hundred thousand.
        return set(map(type, value)) == {int}
    return type(value) is str or (type(value) is dict and "role" not in value)


def _drop_idle_top_n(body: Json, documents: object) -> None:
    """Of one document, the best n are always that one."""
    top_n = body.get("top_n")
    if type(documents) is not list and type(top_n) is int and top_n >= 0:
        del body["top_n"]


_NONE: Final[frozenset[str]] = frozenset()
