"""What a complete answer of chat or completions must look like to be kept; plain bodies and assembled streams alike."""

from collections.abc import Callable
from typing import Any, TypeGuard

import orjson

from inference_cache_sidecar.render.parsing import parsed
from inference_cache_sidecar.render.policy import ENDINGS, AnswerPolicy, Ending
from inference_cache_sidecar.render.protocol import NotStorable, Storable

Judge = Callable[[dict[str, Any], bytes, AnswerPolicy], Storable | NotStorable]
"""Answer as parsed, the same as bytes."""


def taken_in(body: bytes, policy: AnswerPolicy, judge: Judge) -> Storable | NotStorable:
    """Judge a plain 200 body; what is stored is `body` itself."""
    if len(body) > policy.max_answer_bytes:
        return NotStorable("too-large")
    try:
        answer = parsed(body)
        orjson.dumps(answer)
    except orjson.JSONDecodeError:
        return NotStorable("not-json")
    except orjson.JSONEncodeError:
        # Nested deeper than a replay could write again.
        return NotStorable("shape")
    if not isinstance(answer, dict):
        return NotStorable("shape")
    if is_error(answer):
        return NotStorable("error")
    return judge(answer, body, policy)


def is_error(said: dict[str, Any]) -> bool:
    return said.get("error") is not None or said.get("object") == "error" or said.get("type") == "error"


def judge_chat(answer: dict[str, Any], body: bytes, policy: AnswerPolicy) -> Storable | NotStorable:
    return _judge_choices(answer, body, policy, lambda choice: isinstance(choice.get("message"), dict) and is_objects(_calls_of(choice)))


def judge_completion(answer: dict[str, Any], body: bytes, policy: AnswerPolicy) -> Storable | NotStorable:
    return _judge_choices(answer, body, policy, lambda choice: isinstance(choice.get("text"), str))


def _judge_choices(
    answer: dict[str, Any], body: bytes, policy: AnswerPolicy, has_content: Callable[[dict[str, Any]], bool]
) -> Storable | NotStorable:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        return NotStorable("no-choices")
    endings = []
    for choice in choices:
        if not isinstance(choice, dict) or not has_content(choice):
            return NotStorable("shape")
        ending = ending_of(choice.get("finish_reason"))
        if ending is None:
            return NotStorable("finish-reason")
        endings.append(ending)
        if _calls_of(choice):
            endings.append(Ending.TOOL_CALLS)
    return storable(answer, body, policy, endings)


def _calls_of(choice: dict[str, Any]) -> Any:
    message = choice.get("message")
    return (message.get("tool_calls") if isinstance(message, dict) else None) or []


def is_objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def ending_of(word: Any) -> Ending | None:
    return ENDINGS.get(word) if isinstance(word, str) else None


def storable(answer: dict[str, Any], body: bytes, policy: AnswerPolicy, endings: list[Ending]) -> Storable | NotStorable:
    if len(body) > policy.max_answer_bytes:
        return NotStorable("too-large")
    reach = policy.reach(endings)
    if isinstance(reach, NotStorable):
        return reach
    answer_id = answer.get("id")
    return Storable(
        answer=body,
        answer_id=answer_id if isinstance(answer_id, str) else "",
        prompt_tokens=tokens(answer, "prompt_tokens"),
        completion_tokens=tokens(answer, "completion_tokens"),
        reach=reach,
    )


def tokens(answer: dict[str, Any], *names: str) -> int:
    """Sum of these counts of the answer's usage; what is missing counts 0."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return 0
    return sum(count for name in names if type(count := usage.get(name)) is int)
