"""A list request as single queries, and the request for those that were not found.

The pipeline splits, looks every query up, asks upstream for the missing ones, then explodes and merges (answers.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.items.rows import Row, columns, rows
from inference_cache_sidecar.query.admit import admit, origin_of
from inference_cache_sidecar.query.body import Json, TooDeep, stable
from inference_cache_sidecar.query.model import Bypass, Query
from inference_cache_sidecar.query.parse import query_of
from inference_cache_sidecar.query.rendition import PLAIN
from inference_cache_sidecar.query.rules import QueryRules


@dataclass(frozen=True, slots=True)
class Split:
    """A request for several items. An item that occurs twice is asked once."""

    endpoint: Endpoint
    body: bytes
    """As the client sent it."""
    rows: tuple[Row, ...]
    """One a distinct item: the fields that ask for it alone; never changed."""
    queries: tuple[Query, ...]
    """One a distinct item: equal to what `parse` makes of a request for it alone."""
    places: tuple[int, ...]
    """For each place of the client's list, the distinct item that stands there."""
    top_n: int
    """Rerank: how many results the client wants; 0 means all."""


def split(endpoint: Endpoint, body: bytes, headers: Mapping[str, str], rules: QueryRules) -> Split | None:
    """None where there is nothing to gain or to trust: one item, no list, not cacheable, or not to be taken apart.

    `headers` as for `parse`. Lists for a model that `rows.is_listwise` knows must not be split: the caller asks first.
    """
    request = admit(endpoint, body, headers, rules)
    if isinstance(request, Bypass):
        return None
    asked, top_n = rows(endpoint, request), request.pop("top_n", 0) if endpoint is Endpoint.RERANK else 0
    if asked is None or type(top_n) is not int or top_n < 0:
        return None
    try:
        first = query_of(endpoint, {**request, **asked[0]}, origin_of(headers), PLAIN, rules)
        keys = [stable(row) for row in asked]
    except TooDeep:
        return None
    return None if isinstance(first, Bypass) else _distinct(Split(endpoint, body, tuple(asked), (first,), (), top_n), keys)


def upstream_body(split: Split, missing: Sequence[int]) -> bytes:
    """The request for the distinct items `missing` (ascending, not empty); the client's own bytes where that is the same.

    Rerank asks for the results of all documents: the model server scores them all in any case.
    """
    if len(missing) == len(split.places) and not split.top_n:
        return split.body
    request: Json = orjson.loads(split.body)
    if split.endpoint is Endpoint.RERANK:
        request.pop("top_n", None)
    return orjson.dumps({**request, **columns([split.rows[item] for item in missing], request)})


def _distinct(whole: Split, keys: list[bytes]) -> Split:
    """The rows differ in nothing but what they ask, so all queries are the first one with another key."""
    order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    chosen = dict(zip(reversed(keys), reversed(whole.rows), strict=True))
    queries = tuple(replace(whole.queries[0], canonical=key) for key in order)
    return replace(whole, rows=tuple(chosen[key] for key in order), queries=queries, places=tuple(order[key] for key in keys))
