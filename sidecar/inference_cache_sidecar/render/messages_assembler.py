"""A running stream of message events, merged into the plain message."""

import json
from typing import Any

import orjson

from inference_cache_sidecar.render.judging import Judge, is_error, taken_in
from inference_cache_sidecar.render.merging import merge, settled
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.protocol import NotStorable, Storable
from inference_cache_sidecar.render.sse import data_of

Object = dict[str, Any]

_DELTAS = ("text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta")


class MessagesAssembler:
    def __init__(self, policy: AnswerPolicy, judge: Judge) -> None:
        self._policy = policy
        self._judge = judge
        self._message: Object | None = None
        self._blocks: dict[int, Object] = {}
        self._open: set[int] = set()
        self._bytes = 0
        self._done = False
        self._refused: NotStorable | None = None

    def feed(self, event: bytes) -> None:
        if self._refused is not None:
            return
        data = data_of(event)
        if data is None or data == b"[DONE]":
            return
        try:
            self._take(orjson.loads(data), data)
        except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError):
            self._refuse("garbage")

    def result(self) -> Storable | NotStorable:
        if self._refused is not None:
            return self._refused
        if not self._done or self._message is None or self._open:
            return NotStorable("unfinished")
        try:
            answer = self._whole(self._message)
            # The standard encoder keeps integers of any size in a tool's input.
            body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
        except (UnicodeEncodeError, RecursionError):
            return NotStorable("garbage")
        return taken_in(body, self._policy, self._judge)

    def _whole(self, message: Object) -> Object:
        content = [_finished(settled(self._blocks[index])) for index in sorted(self._blocks)]
        # vLLM's plain answer leaves out what is null, and says nothing as one empty text.
        said = {key: value for key, value in message.items() if value is not None}
        return {**said, "content": content or [{"type": "text", "text": ""}]}

    def _take(self, event: Any, data: bytes) -> None:
        if not isinstance(event, dict) or self._done:
            self._refuse("garbage")
        elif is_error(event):
            self._refuse("error")
        elif not self._taken(event, data):
            self._refuse("garbage")
        elif self._bytes > self._policy.max_answer_bytes:
            self._refuse("too-large")

    def _taken(self, event: Object, data: bytes) -> bool:
        """False if the event does not belong here."""
        match event.get("type"):
            case "message_start":
                return self._start(event.get("message"), data)
            case "content_block_start":
                return self._open_block(event.get("index"), event.get("content_block"), data)
            case "content_block_delta":
                return self._extend(event.get("index"), event.get("delta"))
            case "content_block_stop":
                return self._close(event.get("index"))
            case "message_delta":
                return self._amend(event, data)
            case "message_stop":
                self._done = True
        return True

    def _start(self, message: Any, data: bytes) -> bool:
        if self._message is not None or not isinstance(message, dict):
            return False
        self._message = message
        self._bytes += len(data)
        return True

    def _open_block(self, index: Any, block: Any, data: bytes) -> bool:
        if type(index) is not int or index in self._blocks or not isinstance(block, dict):
            return False
        held: Object = {}
        merge(held, block)
        self._blocks[index] = held
        self._open.add(index)
        self._bytes += len(data)
        return True

    def _extend(self, index: Any, delta: Any) -> bool:
        if type(index) is not int or index not in self._open or not isinstance(delta, dict) or delta.get("type") not in _DELTAS:
            return False
        kind = delta.pop("type")
        if kind == "citations_delta":
            delta = {"citations": [delta.get("citation")]}
        self._bytes += merge(self._blocks[index], delta)
        return True

    def _close(self, index: Any) -> bool:
        if type(index) is not int or index not in self._open:
            return False
        self._open.discard(index)
        return True

    def _amend(self, event: Object, data: bytes) -> bool:
        message, delta, usage = self._message, event.get("delta"), event.get("usage")
        if message is None or not isinstance(delta, dict):
            return False
        message.update(delta)
        if isinstance(usage, dict):
            before = message.get("usage")
            message["usage"] = {**(before if isinstance(before, dict) else {}), **usage}
        message |= {key: value for key, value in event.items() if key not in ("type", "delta", "usage")}
        self._bytes += len(data)
        return True

    def _refuse(self, reason: str) -> None:
        self._refused = NotStorable(reason)
        self._message = None
        self._blocks = {}


def _finished(block: Object) -> Object | None:
    """The block as a plain answer has it; None if a tool's input is no whole JSON object."""
    written = block.pop("partial_json", "")
    if written:
        try:
            block["input"] = json.loads(written)
        except (ValueError, TypeError, RecursionError):
            return None
    if block.get("type") == "tool_use" and not isinstance(block.get("input"), dict):
        return None
    return block
