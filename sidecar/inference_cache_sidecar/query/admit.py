"""Which requests can be cached at all: the guards before anything is parsed closely.

Called by the parser and by the item splitter, so that both refuse the same requests.
"""

from collections.abc import Mapping
from typing import Any, Final

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.query.body import Json, load
from inference_cache_sidecar.query.conversation import drop_cache_marks
from inference_cache_sidecar.query.model import Bypass, BypassReason
from inference_cache_sidecar.query.rules import QueryRules
from inference_cache_sidecar.query.sampling import repeatable

GENERATES: Final = frozenset({Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MESSAGES, Endpoint.COMPLETIONS})
"""Endpoints that sample, and that can stream."""

MALFORMED: Final = Bypass(BypassReason.MALFORMED)


def admit(endpoint: Endpoint, body: bytes, headers: Mapping[str, str], rules: QueryRules) -> Json | Bypass:
    """The request as JSON, without the fields that cannot change the answer, or why it is passed through.

    `headers` find names in lower case.
    """
    reason = _refuse_headers(headers)
    if reason is not None:
        return Bypass(reason)
    request = load(body)
    if request is None or not isinstance(request.get("model"), str | None):
        return MALFORMED
    reason = _refuse_fields(endpoint, request, rules)
    if reason is not None:
        return Bypass(reason)
    _drop_ignorable(endpoint, request)
    if endpoint is Endpoint.MESSAGES and b"cache_control" in body:
        drop_cache_marks(request)
    return request


def origin_of(headers: Mapping[str, str]) -> str:
    """What the CORS headers of an answer hang on: the origin, and whether cookies came with it.

    No other header changes an answer: vLLM reads a request id, a session, a priority, a rank, trace ids, and a wish for load
    figures (of the moment, never repeated). Credentials are the tenancy's part.
    """
    origin = headers.get("origin")
    if origin is None:
        return ""
    return f"{origin} cookie" if "cookie" in headers else origin


def _refuse_headers(headers: Mapping[str, str]) -> BypassReason | None:
    if not _is_json(headers.get("content-type")):
        return BypassReason.CONTENT_TYPE
    if headers.get("content-encoding", "identity") not in ("identity", ""):
        return BypassReason.CONTENT_ENCODING
    return None


def _refuse_fields(endpoint: Endpoint, request: Json, rules: QueryRules) -> BypassReason | None:
    if not _TRANSFERS.isdisjoint(request) and any(request[name] is not None for name in _TRANSFERS.intersection(request)):
        return BypassReason.NOT_CACHEABLE
    if request.get("stream") and (request.get("use_beam_search") or request.get("prompt_logprobs") is not None):
        # vLLM refuses to stream these, and an entry stored plain must not answer in its place.
        return BypassReason.NOT_CACHEABLE
    reason = _REFUSE[endpoint](request) if endpoint in _REFUSE else None
    if reason is None and endpoint in GENERATES and not repeatable(endpoint, request, rules.sampling):
        return BypassReason.SAMPLING
    return reason


def _is_json(content_type: str | None) -> bool:
    """As vLLM has it: the media type exactly, any parameters."""
    if content_type == "application/json":
        return True
    return content_type is not None and content_type.lower().split(";", maxsplit=1)[0] == "application/json"


def _drop_ignorable(endpoint: Endpoint, request: Json) -> None:
    ignorable = _IGNORABLE[endpoint]
    if not ignorable.isdisjoint(request):
        for name in ignorable:
            request.pop(name, None)
    if endpoint is Endpoint.RESPONSES:
        for name in _ECHOED:
            if name in request and request[name] is None:
                del request[name]


_TRANSFERS: Final = frozenset({"ec_transfer_params", "kv_transfer_params", "mm_payload", "return_mm_kwargs"})
"""Parts of disaggregated serving: the answer carries the state of one machine."""

_ANYWHERE: Final = frozenset({"user", "metadata", "request_id", "priority"})
_ECHOED: Final = ("user", "metadata")
"""A response object repeats these: another caller's must not be shown, so here they count (null is as good as absent)."""

_IGNORABLE: Final[dict[Endpoint, frozenset[str]]] = {
    **dict.fromkeys(Endpoint, _ANYWHERE),
    Endpoint.CHAT: _ANYWHERE | {"session_id", "stream_interval"},
    Endpoint.COMPLETIONS: _ANYWHERE | {"session_id", "stream_interval"},
    Endpoint.RESPONSES: frozenset({"request_id", "priority", "session_id", "prompt_cache_key"}),
}
"""What cannot change an answer: `session_id` labels cache events, `stream_interval` sizes chunks, `prompt_cache_key` is not read."""


def _refuse_response(request: Json) -> BypassReason | None:
    """State kept by the server, or tools that it runs itself."""
    if request.get("background") not in (None, False) or request.get("store") is True:
        return BypassReason.STATEFUL
    if request.get("previous_response_id") is not None or request.get("conversation") is not None:
        return BypassReason.STATEFUL
    tools, items = request.get("tools"), request.get("input")
    if tools is not None and not (type(tools) is list and all(_runs_at_the_client(tool) for tool in tools)):
        return BypassReason.STATEFUL
    if type(items) is list and any(type(item) is dict and item.get("type") == "item_reference" for item in items):
        return BypassReason.STATEFUL
    return None


def _runs_at_the_client(tool: Any) -> bool:
    return type(tool) is dict and tool.get("type") in ("function", "custom")


def _refuse_embedding(request: Json) -> BypassReason | None:
    """Raw bytes are no JSON answer."""
    return BypassReason.NOT_CACHEABLE if request.get("encoding_format") in ("bytes", "bytes_only") else None


_REFUSE: Final = {Endpoint.RESPONSES: _refuse_response, Endpoint.EMBEDDINGS: _refuse_embedding}
