"""From a request to a query: what must be equal, what may be similar, how the answer is wanted.

The pipeline calls `parse` for every request to a cacheable path; scope and digest are taken from its result.
"""

from collections.abc import Mapping

from inference_cache_contract.canonical import canonical
from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.query.admit import GENERATES, MALFORMED, admit, origin_of
from inference_cache_sidecar.query.body import Json, TooDeep, determinants, stable
from inference_cache_sidecar.query.conversation import REPEATS, TURNS, keep_argument_order, repeats, take_prompt
from inference_cache_sidecar.query.inputs import take_inputs
from inference_cache_sidecar.query.model import Bypass, Query, Rendition
from inference_cache_sidecar.query.rendition import PLAIN, take_rendition
from inference_cache_sidecar.query.rules import QueryRules


def parse(endpoint: Endpoint, body: bytes, headers: Mapping[str, str], rules: QueryRules) -> Query | Bypass:
    """The query in a POST to `endpoint`, or why it is passed through. Never raises; does no I/O.

    `headers` find names in lower case: a plain dict of lower-case names, or any case-insensitive mapping.
    """
    request = admit(endpoint, body, headers, rules)
    if isinstance(request, Bypass):
        return request
    rendition = take_rendition(request) if endpoint in GENERATES else PLAIN
    if rendition is None:
        return MALFORMED
    try:
        return query_of(endpoint, request, origin_of(headers), rendition, rules)
    except TooDeep:
        return MALFORMED


def query_of(endpoint: Endpoint, request: Json, origin: str, rendition: Rendition, rules: QueryRules) -> Query | Bypass:
    """Consumes `request`. Raises TooDeep."""
    if endpoint in TURNS:
        if TURNS[endpoint] not in request:
            return MALFORMED
        return _conversation(endpoint, request, origin, rendition, rules)
    if endpoint is Endpoint.COMPLETIONS and endpoint in rules.semantic_endpoints and _is_one_text(request):
        return _completion(request, origin, rendition)
    return _whole(endpoint, request, origin, rendition)


def _conversation(endpoint: Endpoint, request: Json, origin: str, rendition: Rendition, rules: QueryRules) -> Query | Bypass:
    model = request.get("model") or ""
    prompt = take_prompt(endpoint, request)
    if endpoint is Endpoint.MESSAGES and type(request["messages"]) is list:
        keep_argument_order(request)
    if prompt is None:
        return _whole(endpoint, request, origin, rendition)
    scope = determinants(b"last-turn", request, origin)
    key = canonical(prompt, rules.normalize).encode()
    return Query(endpoint, model, scope, prompt, key, endpoint in rules.semantic_endpoints, rendition)


def _completion(request: Json, origin: str, rendition: Rendition) -> Query:
    """One text, to be matched byte for byte or by similarity; templates are not normalised."""
    model, prompt = request.get("model") or "", request.pop("prompt")
    return Query(Endpoint.COMPLETIONS, model, determinants(b"text", request, origin), prompt, prompt.encode(), True, rendition)


def _is_one_text(request: Json) -> bool:
    prompt = request.get("prompt")
    return type(prompt) is str and bool(prompt.strip()) and not any(repeats(name, request) for name in REPEATS.intersection(request))


def _whole(endpoint: Endpoint, request: Json, origin: str, rendition: Rendition) -> Query | Bypass:
    """Everything byte for byte; no prompt is singled out."""
    inputs = take_inputs(endpoint, request)
    if not inputs:
        return MALFORMED
    shape = " ".join(("whole", *inputs)).encode()
    return Query(endpoint, request.get("model") or "", determinants(shape, request, origin), "", stable(inputs), False, rendition)
