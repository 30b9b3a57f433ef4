"""The plain answers of vLLM 0.32, field by field: what a stream leaves out and a plain answer says as null."""

from collections.abc import Iterable
from typing import Any, Final

from inference_cache_sidecar.render.judging import is_objects
from inference_cache_sidecar.render.protocol import NotStorable

Object = dict[str, Any]

CHAT: Final = (
    "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage", "prompt_logprobs",
    "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics",
)  # fmt: skip
CHAT_CHOICE: Final = ("index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts")
MESSAGE: Final = ("role", "content", "refusal", "annotations", "audio", "function_call")
COMPLETION: Final = (
    "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
    "kv_transfer_params", "ec_transfer_params", "metrics",
)  # fmt: skip
COMPLETION_CHOICE: Final = (
    "index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts",
)  # fmt: skip
USAGE: Final = ("prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")
PROMPT_DETAILS: Final = ("cached_tokens", "created_cache_tokens", "multimodal_tokens")


def filled(names: Iterable[str], said: Object) -> Object:
    """`said` with every one of `names`, null where nothing was said, in this order; further fields behind."""
    return {**dict.fromkeys(names), **said}


def chat_answer(top: Object, choices: list[Object]) -> Object | NotStorable:
    whole = []
    for choice in choices:
        if choice.get("finish_reason") == "length" and (choice.get("delta") or {}).get("tool_calls"):
            # vLLM's plain answer shows the raw text instead of half a call.
            return NotStorable("length")
        whole.append(_chat_choice(choice))
    return {**filled(CHAT, top), "object": "chat.completion", "choices": whole, "usage": _usage(top)}


def _chat_choice(choice: Object) -> Object:
    choice["message"] = _message(choice.pop("delta", None) or {}, choice.get("finish_reason"))
    _fill_logprobs(choice.get("logprobs"))
    return filled(CHAT_CHOICE, choice)


def _message(delta: Object, finish_reason: Any) -> Object:
    if "content" not in delta:
        delta["content"] = _content_when_none_came(delta, finish_reason)
    calls = delta.get("tool_calls")
    for call in calls if is_objects(calls) else ():
        call.pop("index", None)
    if not delta.get("tool_calls"):
        delta.pop("tool_calls", None)
    message = filled(MESSAGE, {"role": "assistant", **delta})
    return message if "reasoning" in message else {**message, "reasoning": None}


def _content_when_none_came(delta: Object, finish_reason: Any) -> str | None:
    """As vLLM's parsers: null beside reasoning or automatic tool calls, else empty."""
    called = delta.get("tool_calls") and finish_reason == "tool_calls"
    if called or delta.get("function_call") or any(delta.get(name) is not None for name in ("reasoning", "reasoning_content")):
        return None
    return ""


def _fill_logprobs(logprobs: Any) -> None:
    """A stream leaves out what is at its default."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    for token in content if is_objects(content) else ():
        token.setdefault("logprob", -9999.0)
        token.setdefault("bytes", None)
        token.setdefault("top_logprobs", [])


def completion_answer(top: Object, choices: list[Object]) -> Object | NotStorable:
    for choice in choices:
        if _echoes_logprobs(choice.get("logprobs")):
            # The plain answer would carry prompt_logprobs, which no stream does.
            return NotStorable("echo")
        if choice.get("token_ids") is None:
            # An echoing stream says them unasked, a plain answer does not.
            choice["prompt_token_ids"] = None
    whole = [filled(COMPLETION_CHOICE, choice) for choice in choices]
    return {**filled(COMPLETION, top), "object": "text_completion", "choices": whole, "usage": _usage(top)}


def _echoes_logprobs(logprobs: Any) -> bool:
    """The first token of a prompt has no probability; every generated one has."""
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    return isinstance(values, list) and bool(values) and values[0] is None


def _usage(top: Object) -> Any:
    usage = top.get("usage")
    if not isinstance(usage, dict):
        return usage
    whole = filled(USAGE, usage)
    details = whole["prompt_tokens_details"]
    if isinstance(details, dict):
        whole["prompt_tokens_details"] = filled(PROMPT_DETAILS, details)
    return whole
