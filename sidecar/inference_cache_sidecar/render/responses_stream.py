"""A stored response replayed as vLLM would have streamed it: each item opened, filled in one delta a part, closed."""

import json
from typing import Any

from inference_cache_sidecar.render.sse import named_event

Object = dict[str, Any]


def responses_stream(answer: bytes) -> bytes:
    """`answer` already carries the id to send; it stands in the last event as it is."""
    # The standard parser keeps integers of any size.
    whole = json.loads(answer)
    writer = _EventWriter()
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    writer.event("response.created", {"response": begun})
    writer.event("response.in_progress", {"response": begun})
    for index, item in enumerate(whole["output"]):
        _Item(writer, index, item).write()
    writer.event("response.completed", {"response": whole})
    return writer.written()


class _EventWriter:
    def __init__(self) -> None:
        self._events: list[bytes] = []

    def event(self, kind: str, fields: Object) -> None:
        numbered = {**fields, "sequence_number": len(self._events), "type": kind}
        self._events.append(named_event(kind, json.dumps(numbered, ensure_ascii=False, separators=(",", ":")).encode()))

    def written(self) -> bytes:
        return b"".join(self._events)


class _Item:
    """One output item on its way into the stream."""

    def __init__(self, writer: _EventWriter, index: int, item: Object) -> None:
        self._writer = writer
        self._item = item
        self._place = {"output_index": index, "item_id": item.get("id", "")}

    def write(self) -> None:
        match self._item.get("type"):
            case "message":
                self._opened({"content": []})
                self._parts("content", "content_index", _MESSAGE_PARTS)
            case "reasoning":
                self._opened({"content": None, "summary": []})
                self._parts("summary", "summary_index", _SUMMARY_PARTS)
                self._parts("content", "content_index", _REASONING_PARTS)
            case "function_call":
                self._opened({"arguments": ""})
                self._whole_text("arguments", "response.function_call_arguments", {"name": self._item.get("name")})
            case "custom_tool_call":
                self._opened({"input": ""})
                self._whole_text("input", "response.custom_tool_call_input", {})
            case _:
                self._opened({})
        self._event("response.output_item.done", {"item": self._item}, item_id=False)

    def _opened(self, empty: Object) -> None:
        began = {key: empty.get(key, value) for key, value in self._item.items()}
        if "status" in began:
            began["status"] = "in_progress"
        self._event("response.output_item.added", {"item": began}, item_id=False)

    def _parts(self, key: str, index_name: str, kinds: dict[str, tuple[str, str]]) -> None:
        for index, part in enumerate(self._item.get(key) or ()):
            place = {index_name: index}
            text_key, kind = kinds.get(part.get("type"), ("", ""))
            around = "response.reasoning_summary_part" if key == "summary" else "response.content_part"
            began = {**part, text_key: "", "logprobs": []} if "logprobs" in part else {**part, **({text_key: ""} if text_key else {})}
            self._event(f"{around}.added", {**place, "part": began})
            if text_key:
                self._text(kind, part.get(text_key), place, part)
            self._event(f"{around}.done", {**place, "part": part})

    def _text(self, kind: str, text: Any, place: Object, part: Object) -> None:
        logprobs: Object = {"logprobs": []} if "logprobs" in part else {}
        said = {"logprobs": [_without_bytes(token) for token in part.get("logprobs") or ()]} if logprobs else {}
        if text:
            self._event(f"{kind}.delta", {**place, "delta": text, **said})
        name = "refusal" if kind == "response.refusal" else "text"
        self._event(f"{kind}.done", {**place, name: text, **logprobs})

    def _whole_text(self, key: str, kind: str, named: Object) -> None:
        text = self._item.get(key) or ""
        if text:
            self._event(f"{kind}.delta", {"delta": text})
        self._event(f"{kind}.done", {key: text, **named})

    def _event(self, kind: str, fields: Object, *, item_id: bool = True) -> None:
        place = self._place if item_id else {"output_index": self._place["output_index"]}
        self._writer.event(kind, {**place, **fields})


_MESSAGE_PARTS = {"output_text": ("text", "response.output_text"), "refusal": ("refusal", "response.refusal")}
_REASONING_PARTS = {"reasoning_text": ("text", "response.reasoning_text")}
_SUMMARY_PARTS = {"summary_text": ("text", "response.reasoning_summary_text")}


def _without_bytes(token: Any) -> Any:
    """The logprobs of a delta have no bytes, those of the finished part have."""
    if not isinstance(token, dict):
        return token
    bare = {key: value for key, value in token.items() if key != "bytes"}
    if isinstance(bare.get("top_logprobs"), list):
        bare["top_logprobs"] = [_without_bytes(other) for other in bare["top_logprobs"]]
    return bare
