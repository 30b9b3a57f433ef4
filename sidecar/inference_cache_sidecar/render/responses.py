"""The renderer of /v1/responses: the last event of a stream carries the whole plain answer."""

from typing import Any

import orjson

from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render import ids
from inference_cache_sidecar.render.judging import ending_of, is_error, is_objects, storable, taken_in, tokens
from inference_cache_sidecar.render.live import IdSwap
from inference_cache_sidecar.render.members import members
from inference_cache_sidecar.render.policy import AnswerPolicy, Ending
from inference_cache_sidecar.render.protocol import NotStorable, Storable
from inference_cache_sidecar.render.responses_stream import responses_stream
from inference_cache_sidecar.render.sse import data_of

_TERMINAL = ("response.completed", "response.incomplete")
_FAILED = ("response.failed", "response.cancelled", "error")


class ResponsesRenderer:
    def __init__(self, policy: AnswerPolicy) -> None:
        self._policy = policy

    def upstream_body(self, body: bytes, rendition: Rendition) -> bytes:
        return body

    def from_plain(self, body: bytes) -> Storable | NotStorable:
        return taken_in(body, self._policy, judge_response)

    def assembler(self) -> "ResponsesAssembler":
        return ResponsesAssembler(self._policy)

    def can_join(self, rendition: Rendition, leader: Rendition) -> bool:
        return True

    def live(self, rendition: Rendition, answer_id: str | None) -> IdSwap:
        return IdSwap(answer_id)

    def new_id(self, request_id: str | None) -> str:
        """vLLM takes no X-Request-Id here."""
        return ids.new_id("resp_", None)

    def plain(self, answer: bytes, old_id: str, new_id: str) -> bytes:
        return ids.replace_id(answer, old_id, new_id)

    def stream(self, answer: bytes, old_id: str, new_id: str, rendition: Rendition) -> bytes:
        return responses_stream(self.plain(answer, old_id, new_id))


def judge_response(answer: dict[str, Any], body: bytes, policy: AnswerPolicy) -> Storable | NotStorable:
    output = answer.get("output")
    if not is_objects(output) or not all(is_objects(item.get(key) or []) for item in output for key in ("content", "summary")):
        return NotStorable("shape")
    ending = _ending(answer)
    if ending is None:
        return NotStorable("finish-reason")
    if not output:
        return NotStorable("no-choices")
    endings = [ending]
    if _calls(output):
        endings.append(Ending.TOOL_CALLS)
    kept = storable(answer, body, policy, endings)
    if isinstance(kept, NotStorable):
        return kept
    return Storable(kept.answer, kept.answer_id, tokens(answer, "input_tokens"), tokens(answer, "output_tokens"), kept.reach)


def _ending(answer: dict[str, Any]) -> Ending | None:
    if answer.get("status") == "completed":
        return Ending.STOP
    details = answer.get("incomplete_details")
    if answer.get("status") == "incomplete" and isinstance(details, dict):
        return ending_of(details.get("reason"))
    return None


def _calls(output: list[dict[str, Any]]) -> bool:
    return any(str(item.get("type")).endswith("_call") for item in output)


def _judge_streamed(answer: dict[str, Any], body: bytes, policy: AnswerPolicy) -> Storable | NotStorable:
    kept = judge_response(answer, body, policy)
    if isinstance(kept, Storable) and answer["status"] == "incomplete" and _calls(answer["output"]):
        # vLLM's plain answer shows the raw text instead of half a call.
        return NotStorable("length")
    return kept


class ResponsesAssembler:
    """Keeps the response of the terminal event, as it was written; checks the others."""

    def __init__(self, policy: AnswerPolicy) -> None:
        self._policy = policy
        self._answer: bytes | None = None
        self._refused: NotStorable | None = None

    def feed(self, event: bytes) -> None:
        data = data_of(event)
        if data is None or data == b"[DONE]" or self._refused is not None:
            return
        try:
            self._take(orjson.loads(data), data)
        except (ValueError, RecursionError):
            self._refused = NotStorable("garbage")

    def result(self) -> Storable | NotStorable:
        if self._refused is not None:
            return self._refused
        if self._answer is None:
            return NotStorable("unfinished")
        return taken_in(self._answer, self._policy, _judge_streamed)

    def _take(self, event: Any, data: bytes) -> None:
        if not isinstance(event, dict) or self._answer is not None:
            self._refused = NotStorable("garbage")
        elif is_error(event) or event.get("type") in _FAILED:
            self._refused = NotStorable("error")
        elif event.get("type") in _TERMINAL:
            text = data.decode()
            self._answer = b"".join(text[m.start : m.end].encode() for m in members(text) if m.key == "response")
