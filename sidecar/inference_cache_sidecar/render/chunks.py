"""Writing chunks: what the replays of chat and completions have in common."""

from typing import Any

import orjson

from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render.shape import PROMPT_DETAILS, USAGE, Object
from inference_cache_sidecar.render.sse import DONE, data_event


class ChunkWriter:
    """Collects the chunks of one replay; every chunk carries the same id, object, time and model."""

    def __init__(self, answer: Object, kind: str, answer_id: str, rendition: Rendition) -> None:
        head = {"id": answer_id, "object": kind, "created": answer.get("created"), "model": answer.get("model")}
        self._head = orjson.dumps(head)[:-1] + b',"choices":['
        self._answer = answer
        self._usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else None
        self._fingerprint = answer.get("system_fingerprint")
        self._rendition = rendition
        self._events: list[bytes] = []

    def chunk(self, choice: Object, completion_tokens: int | None, extras: Object | None = None) -> None:
        """`completion_tokens`: how many of this choice's are out by now; None if the answer does not tell."""
        fields = dict(extras or {})
        if self._rendition.include_usage:
            if self._rendition.continuous_usage and completion_tokens is not None and self._usage is not None:
                fields = {"usage": _running_usage(self._usage, completion_tokens), **fields}
        elif choice.get("finish_reason") is not None and self._fingerprint is not None:
            fields["system_fingerprint"] = self._fingerprint
        self._write(orjson.dumps(choice), fields)

    def finished(self) -> bytes:
        if self._rendition.include_usage and self._usage is not None:
            fields = {"usage": _final_usage(self._usage)}
            for name in ("system_fingerprint", "metrics"):
                if self._answer.get(name) is not None:
                    fields[name] = self._answer[name]
            self._write(b"", fields)
        self._events.append(DONE)
        return b"".join(self._events)

    def _write(self, choice: bytes, fields: Object) -> None:
        tail = b"," + orjson.dumps(fields)[1:] if fields else b"}"
        self._events.append(data_event(self._head + choice + b"]" + tail))


def extras_of(said: Object, known: tuple[str, ...]) -> Object:
    """What a stream has no place of its own for: unknown fields, and known ones that are not null."""
    return {name: value for name, value in said.items() if value is not None or name not in known}


def token_count(choice: Object, usage: Any, choices: int) -> int | None:
    """How many tokens this choice has; None if the answer does not tell."""
    if choices == 1 and isinstance(usage, dict) and type(usage.get("completion_tokens")) is int:
        return int(usage["completion_tokens"])
    if isinstance(choice.get("token_ids"), list):
        return len(choice["token_ids"])
    return None


def _running_usage(usage: Object, completion_tokens: int) -> Object:
    said = usage.get("prompt_tokens")
    prompt_tokens = said if type(said) is int else 0
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens + completion_tokens, "completion_tokens": completion_tokens}


def _final_usage(usage: Object) -> Object:
    said = extras_of(usage, USAGE)
    if isinstance(said.get("prompt_tokens_details"), dict):
        said["prompt_tokens_details"] = extras_of(said["prompt_tokens_details"], PROMPT_DETAILS)
    return said
