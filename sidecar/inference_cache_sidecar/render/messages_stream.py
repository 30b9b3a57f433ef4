"""A stored message replayed as vLLM would have streamed it, each block filled by one delta."""

import json
from collections.abc import Iterator
from typing import Any

from inference_cache_sidecar.render.judging import tokens
from inference_cache_sidecar.render.sse import named_event

Object = dict[str, Any]

PROMPT_TOKENS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_LATE = frozenset({"content", "stop_reason", "stop_sequence", "usage"})


def messages_stream(answer: bytes) -> bytes:
    """`answer` already carries the id to send."""
    # The standard parser keeps integers of any size.
    whole = json.loads(answer)
    return b"".join(named_event(event["type"], _dumps(event).encode()) for event in _events(whole))


def _events(whole: Object) -> Iterator[Object]:
    begun = {key: [] if key == "content" else value for key, value in whole.items() if key not in _LATE or key == "content"}
    yield {
        "type": "message_start",
        "message": {**begun, "stop_reason": None, "stop_sequence": None, "usage": _usage_at_start(whole)},
    }
    for index, block in enumerate(whole["content"]):
        yield from _block_events(index, block)
    delta = {"stop_reason": whole.get("stop_reason"), "stop_sequence": whole.get("stop_sequence")}
    yield {"type": "message_delta", "delta": delta, "usage": whole.get("usage")}
    yield {"type": "message_stop"}


def _usage_at_start(whole: Object) -> Object:
    """Before anything is generated vLLM does not say yet which part of the prompt was cached."""
    return {"input_tokens": tokens(whole, *PROMPT_TOKENS), "output_tokens": 0}


def _block_events(index: int, block: Object) -> Iterator[Object]:
    empty, deltas = _unfolded(block)
    yield {"type": "content_block_start", "content_block": empty, "index": index}
    for delta in deltas:
        yield {"type": "content_block_delta", "delta": delta, "index": index}
    yield {"type": "content_block_stop", "index": index}


def _unfolded(block: Object) -> tuple[Object, list[Object]]:
    """The block as it opens, and what fills it."""
    match block.get("type"):
        case "text":
            citations = block.get("citations") or []
            said = {key: value for key, value in block.items() if key != "citations" or not citations}
            deltas = [{"type": "citations_delta", "citation": citation} for citation in citations]
            return {**said, "text": ""}, _filling("text_delta", "text", block.get("text")) + deltas
        case "thinking":
            opening = {key: value for key, value in block.items() if key != "signature"}
            deltas = _filling("thinking_delta", "thinking", block.get("thinking"))
            return {**opening, "thinking": ""}, deltas + _filling("signature_delta", "signature", block.get("signature"))
        case "tool_use" | "server_tool_use":
            return {**block, "input": {}}, _filling("input_json_delta", "partial_json", _dumps(block.get("input") or {}))
        case _:
            return block, []


def _filling(kind: str, key: str, text: Any) -> list[Object]:
    return [{"type": kind, key: text}] if text else []


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
