"""A stored chat answer replayed as vLLM would have streamed it, each text in one chunk."""

from collections.abc import Iterator
from typing import Any

from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render.chunks import ChunkWriter, extras_of, token_count
from inference_cache_sidecar.render.parsing import parsed
from inference_cache_sidecar.render.shape import CHAT, CHAT_CHOICE, MESSAGE, Object

_OWN_PLACE = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "metrics", "prompt_token_ids", "prompt_text"}
)
_TEXTS = ("reasoning_content", "reasoning", "content", "refusal")
_KNOWN_IN_MESSAGE = (*MESSAGE, "reasoning", "tool_calls")


def chat_stream(answer: bytes, answer_id: str, rendition: Rendition) -> bytes:
    whole = parsed(answer)
    writer = ChunkWriter(whole, "chat.completion.chunk", answer_id, rendition)
    choices = whole["choices"]
    for position, choice in enumerate(choices):
        writer.chunk(_opening(choice, position), 0, _prompt_fields(whole, first=position == 0))
    for position, choice in enumerate(choices):
        count = token_count(choice, whole.get("usage"), len(choices))
        for part in _parts(choice, position):
            writer.chunk(part, count)
    return writer.finished()


def _prompt_fields(whole: Object, *, first: bool) -> Object:
    """vLLM says the prompt on every opening chunk; what it never streams goes out once."""
    fields = {name: whole.get(name) for name in ("prompt_token_ids", "prompt_text")}
    if first:
        fields |= {name: value for name, value in extras_of(whole, CHAT).items() if name not in _OWN_PLACE}
    return fields


def _opening(choice: Object, position: int) -> Object:
    message = choice["message"]
    others = {name: value for name, value in extras_of(message, _KNOWN_IN_MESSAGE).items() if name not in (*_TEXTS, "tool_calls", "role")}
    delta = {"role": message.get("role", "assistant"), "content": "", **others}
    return {"index": choice.get("index", position), "delta": delta, "logprobs": None, "finish_reason": None}


def _parts(choice: Object, position: int) -> Iterator[Object]:
    """The deltas, then the chunk that ends the choice; logprobs and token ids go with the first delta that has text."""
    index = choice.get("index", position)
    carried = {"logprobs": choice.get("logprobs"), "token_ids": choice.get("token_ids")}
    for delta in _deltas(choice["message"]):
        yield {"index": index, "delta": delta, "logprobs": carried["logprobs"], "finish_reason": None, "token_ids": carried["token_ids"]}
        carried = dict.fromkeys(carried)
    content = choice["message"].get("content")
    yield {
        "index": index,
        "delta": {"content": None if content is None else ""},
        "logprobs": carried["logprobs"],
        "finish_reason": choice.get("finish_reason"),
        "stop_reason": choice.get("stop_reason"),
        "token_ids": carried["token_ids"],
        **{name: value for name, value in extras_of(choice, CHAT_CHOICE).items() if name not in CHAT_CHOICE or name == "routed_experts"},
    }


def _deltas(message: Object) -> Iterator[Object]:
    for name in _TEXTS:
        text = message.get(name)
        if text or (text == "" and name != "content"):
            yield {name: text}
    for index, call in enumerate(message.get("tool_calls") or ()):
        yield from _call_deltas(index, call)


def _call_deltas(index: int, call: Any) -> Iterator[Object]:
    function = call.get("function")
    if not isinstance(function, dict):
        yield {"content": None, "tool_calls": [{"index": index, **call}]}
        return
    named = {name: value for name, value in function.items() if name != "arguments"}
    yield {"content": None, "tool_calls": [{"index": index, **call, "function": named}]}
    if "arguments" in function:
        yield {"content": None, "tool_calls": [{"index": index, "function": {"arguments": function["arguments"]}}]}
