"""Chat and text completions in vLLM's form, plain and streamed. Called by `server` for their two paths."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from inference_cache_toolkit.standin.answers import Answer, Writer, last_user_text, text_of, token_count
from inference_cache_toolkit.standin.prepared import DONE, ID, Prepared, RequestError, data_event

SYSTEM_FINGERPRINT = "standin-0.32.0"


def _limit(request: Mapping[str, Any], *names: str) -> int | None:
    return next((int(request[name]) for name in names if request.get(name) is not None), None)


def _answers(request: Mapping[str, Any], writer: Writer, prompt: str) -> list[Answer]:
    limit = _limit(request, "max_completion_tokens", "max_tokens")
    return [writer.write(request, prompt, limit, choice) for choice in range(int(request.get("n") or 1))]


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def _details() -> dict[str, None]:
    return {"prompt_tokens_details": None, "completion_tokens_details": None}


def _logprob(token: str) -> dict[str, Any]:
    one = {"token": token, "logprob": -0.5, "bytes": list(token.encode())}
    return {**one, "top_logprobs": [one]}


def chat(request: Mapping[str, Any], writer: Writer) -> Prepared:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        text = "Cannot apply chat template to an empty conversation. Provide at least one message."
        raise RequestError(400, "RequestErrorError", text)
    answers = _answers(request, writer, last_user_text(messages))
    prompt_tokens = sum(token_count(text_of(m.get("content"))) + 3 for m in messages if isinstance(m, dict))
    completion_tokens = sum(answer.completion_tokens for answer in answers)
    created = int(time.time())
    head = {"id": ID, "object": "chat.completion", "created": created, "model": request.get("model")}
    plain = {
        **head,
        "choices": [_chat_choice(i, answer, bool(request.get("logprobs"))) for i, answer in enumerate(answers)],
        "service_tier": None,
        "system_fingerprint": SYSTEM_FINGERPRINT,
        "usage": {**_usage(prompt_tokens, completion_tokens), **_details()},
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "kv_transfer_params": None,
    }
    chunk_head = {**head, "object": "chat.completion.chunk"}
    events = _stream(request, chunk_head, list(_chat_deltas(request, answers)), (prompt_tokens, completion_tokens))
    return Prepared("chatcmpl-", orjson.dumps(plain), events, completion_tokens)


def _chat_choice(index: int, answer: Answer, logprobs: bool) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if answer.tool else answer.text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if answer.tool:
        function = {"name": answer.tool.name, "arguments": answer.tool.arguments}
        message["tool_calls"] = [{"id": answer.tool.call_id, "type": "function", "function": function}]
    message["reasoning"] = "".join(answer.reasoning) or None
    return {
        "index": index,
        "message": message,
        "logprobs": {"content": [_logprob(token) for token in answer.tokens]} if logprobs else None,
        "finish_reason": answer.finish,
        "stop_reason": None,
        "token_ids": None,
    }


def _chat_deltas(request: Mapping[str, Any], answers: list[Answer]) -> Iterator[dict[str, Any]]:
    """The choices of every chunk in turn: all roles first, then each choice's tokens."""
    for index in range(len(answers)):
        yield {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    for index, answer in enumerate(answers):
        deltas = [({"reasoning": token}, token) for token in answer.reasoning] + [({"content": token}, token) for token in answer.tokens]
        if answer.tool:
            function = {"name": answer.tool.name, "arguments": answer.tool.arguments}
            call = {"id": answer.tool.call_id, "type": "function", "index": 0, "function": function}
            deltas.append(({"tool_calls": [call]}, ""))  # type: ignore[dict-item]  # the only delta whose value is a list
        for position, (delta, token) in enumerate(deltas):
            last = position == len(deltas) - 1
            logprobs = {"content": [_logprob(token)]} if request.get("logprobs") and "content" in delta else None
            yield {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": answer.finish if last else None}


def completions(request: Mapping[str, Any], writer: Writer) -> Prepared:
    prompt = request.get("prompt")
    if prompt is None:
        raise RequestError(400, "RequestErrorError", "Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    text = prompt if isinstance(prompt, str) else orjson.dumps(prompt).decode()
    answers = _answers(request, writer, text)
    prompt_tokens, completion_tokens = token_count(text), sum(answer.completion_tokens for answer in answers)
    head = {"id": ID, "object": "text_completion", "created": int(time.time()), "model": request.get("model")}
    choices = [
        {"index": i, "text": a.text, "logprobs": None, "finish_reason": a.finish, "stop_reason": None, "prompt_logprobs": None}
        for i, a in enumerate(answers)
    ]
    usage = {**_usage(prompt_tokens, completion_tokens), **_details()}
    plain = {**head, "choices": choices, "system_fingerprint": SYSTEM_FINGERPRINT, "usage": usage, "kv_transfer_params": None}
    pieces = [
        {"index": i, "text": token, "logprobs": None, "finish_reason": a.finish if at == len(a.tokens) - 1 else None, "stop_reason": None}
        for i, a in enumerate(answers)
        for at, token in enumerate(a.tokens)
    ]
    return Prepared("cmpl-", orjson.dumps(plain), _stream(request, head, pieces, (prompt_tokens, completion_tokens)), completion_tokens)


def _stream(
    request: Mapping[str, Any], head: Mapping[str, Any], pieces: list[dict[str, Any]], tokens: tuple[int, int]
) -> tuple[bytes, ...]:
    """One event a piece; the fingerprint on the last, or on the usage chunk where one was asked for."""
    options = request.get("stream_options") or {}
    include, continuous = bool(options.get("include_usage")), bool(options.get("continuous_usage_stats"))
    events: list[bytes] = []
    for position, piece in enumerate(pieces):
        payload: dict[str, Any] = {**head, "choices": [piece]}
        if include and continuous:
            payload["usage"] = _usage(tokens[0], min(position, tokens[1]))
        if not include and position == len(pieces) - 1:
            payload["system_fingerprint"] = SYSTEM_FINGERPRINT
        events.append(data_event(payload))
    if include:
        events.append(data_event({**head, "choices": [], "usage": _usage(*tokens), "system_fingerprint": SYSTEM_FINGERPRINT}))
    return (*events, DONE)
