"""A running stream of chat or completion chunks, merged chunk by chunk into the plain answer.

Fed by the flight that upstream answers; its result becomes an entry. Merging as the chunks come keeps the event loop
free at the end of a long answer, and holds the answer only, not its events.
"""

from collections.abc import Callable
from typing import Any

import orjson

from inference_cache_sidecar.render.judging import Judge, is_error
from inference_cache_sidecar.render.merging import merge, settled
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.protocol import NotStorable, Storable
from inference_cache_sidecar.render.shape import Object
from inference_cache_sidecar.render.sse import data_of

Finish = Callable[[Object, list[Object]], Object | NotStorable]
"""The plain answer from the merged top level and the merged choices."""

_CHOICE_BYTES = 256


class ChoicesAssembler:
    def __init__(self, policy: AnswerPolicy, finish: Finish, judge: Judge) -> None:
        self._policy = policy
        self._finish = finish
        self._judge = judge
        self._top: Object = {}
        self._choices: dict[int, Object] = {}
        self._bytes = 0
        self._done = False
        self._refused: NotStorable | None = None

    def feed(self, event: bytes) -> None:
        if self._refused is not None:
            return
        data = data_of(event)
        if data is None:
            return
        if data == b"[DONE]":
            self._done = True
            return
        try:
            self._take(orjson.loads(data), data)
        except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError):
            self._refuse("garbage")

    def result(self) -> Storable | NotStorable:
        if self._refused is not None:
            return self._refused
        if not self._done:
            return NotStorable("unfinished")
        if sorted(self._choices) != list(range(len(self._choices))):
            return NotStorable("shape")
        if not isinstance(self._top.get("usage"), dict):
            return NotStorable("no-usage")
        try:
            return self._whole()
        except (orjson.JSONEncodeError, RecursionError):
            return NotStorable("garbage")

    def _whole(self) -> Storable | NotStorable:
        answer = self._finish(self._top, [settled(self._choices[index]) for index in sorted(self._choices)])
        if isinstance(answer, NotStorable):
            return answer
        return self._judge(answer, orjson.dumps(answer), self._policy)

    def _take(self, chunk: Any, data: bytes) -> None:
        choices = chunk.pop("choices", None) if isinstance(chunk, dict) else None
        if isinstance(chunk, dict) and is_error(chunk):
            self._refuse("error")
        elif self._done or not isinstance(choices, list):
            self._refuse("garbage")
        else:
            self._take_top(chunk, data)
            for choice in choices:
                self._take_choice(choice)
            if self._bytes > self._policy.max_answer_bytes:
                self._refuse("too-large")

    def _take_top(self, chunk: Object, data: bytes) -> None:
        top = self._top
        known = len(top)
        for key, value in chunk.items():
            if value is not None or key not in top:
                top[key] = value
        if len(top) != known:
            self._bytes += len(data)

    def _take_choice(self, choice: Any) -> None:
        if not isinstance(choice, dict) or type(choice.get("index")) is not int:
            self._refuse("garbage")
            return
        delta = choice.get("delta")
        if delta is not None and not isinstance(delta, dict):
            self._refuse("garbage")
            return
        if delta and "content" in delta:
            _drop_placeholder(delta)
        held = self._choices.get(choice["index"])
        if held is None:
            held = self._choices[choice["index"]] = {}
            self._bytes += _CHOICE_BYTES
        self._bytes += merge(held, choice)

    def _refuse(self, reason: str) -> None:
        """Nothing of a refused answer is kept."""
        self._refused = NotStorable(reason)
        self._top = {}
        self._choices = {}


def _drop_placeholder(delta: Object) -> None:
    """The empty content beside a role and the null beside tool calls say nothing of the answer's content."""
    content = delta["content"]
    if (content == "" and "role" in delta) or (content is None and "tool_calls" in delta):
        del delta["content"]
