"""A request that asks about several things, as rows: the fields of the request that would ask about one.

Called by the splitter; `columns` is the way back, from rows to the fields of one request.
"""

from collections.abc import Sequence
from typing import Any, Final

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.query.body import Json
from inference_cache_sidecar.query.inputs import INPUTS, PAIRS, is_item

Row = dict[str, Any]

MAX_ROWS: Final = 256
"""A longer list stays whole: taking it apart would hold up everybody else."""

LISTWISE_MARKS: Final = ("jina-reranker-v3", "jinaforranking", "listwise")


def is_listwise(*names: str) -> bool:
    """A model that reads all documents of a request at once, so that a score hangs on its neighbours, by its name or root.

    vLLM serves one such architecture (JinaForRanking) and does not say so anywhere; its lists must stay whole.
    """
    return any(mark in name.lower().replace("_", "-") for name in names for mark in LISTWISE_MARKS)


def rows(endpoint: Endpoint, request: Json) -> list[Row] | None:
    """None where the request is not a list of independent items, or not one that the model server would take."""
    fields = [name for name in INPUTS[endpoint] if name in request] if endpoint in INPUTS else []
    if endpoint in (Endpoint.EMBEDDINGS, Endpoint.CLASSIFY):
        return _single_column("input", request) if fields == ["input"] else None
    if endpoint is Endpoint.RERANK:
        return _paired("query", "documents", request) if fields == ["query", "documents"] and type(request["query"]) is not list else None
    if endpoint is Endpoint.SCORE:
        pair = next((pair for pair in PAIRS if sorted(pair) == fields), None)
        return _paired(*pair, request) if pair else None
    return None


def columns(split_rows: Sequence[Row], request: Json) -> Json:
    """The fields that ask about all of `split_rows`; a field that was not a list of several stays as the client wrote it."""
    names = split_rows[0].keys()
    return {name: [row[name] for row in split_rows] if _several(request[name]) else request[name] for name in names}


def _single_column(name: str, request: Json) -> list[Row] | None:
    items = request[name]
    if not _several(items) or len(items) > MAX_ROWS:
        return None
    if not all(type(item) is type(items[0]) and type(item) is not dict and is_item(item) for item in items):
        return None
    return [{name: item} for item in items]


def _paired(first: str, second: str, request: Json) -> list[Row] | None:
    left, right = _as_list(request[first]), _as_list(request[second])
    if not 2 <= len(right) <= MAX_ROWS or len(left) > MAX_ROWS:
        return None
    if not all(type(item) in (str, dict) and is_item(item) for item in (*left, *right)):
        return None
    if len(left) == 1:
        left = left * len(right)
    return [{first: one, second: other} for one, other in zip(left, right, strict=True)] if len(left) == len(right) else None


def _several(value: object) -> bool:
    return type(value) is list and len(value) > 1


def _as_list(value: object) -> list[Any]:
    return value if type(value) is list else [value]
