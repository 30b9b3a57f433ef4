"""Responses and Anthropic messages in vLLM's form: streams of named events. Called by `server` for their two paths."""

import time
from collections.abc import Mapping
from typing import Any

import orjson

from inference_cache_toolkit.standin.answers import Answer, Writer, last_user_text, text_of, token_count
from inference_cache_toolkit.standin.prepared import ID, Prepared, RequestError, named_event

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def messages(request: Mapping[str, Any], writer: Writer) -> Prepared:
    turns = request.get("messages")
    if not isinstance(turns, list) or not turns or not isinstance(request.get("max_tokens"), int):
        raise RequestError(400, "RequestErrorError", "messages and max_tokens are required.")
    answer = writer.write(request, last_user_text(turns), int(request["max_tokens"]))
    block: dict[str, Any] = {"type": "text", "text": answer.text}
    if answer.tool:
        block = {"type": "tool_use", "id": answer.tool.call_id, "name": answer.tool.name, "input": orjson.loads(answer.tool.arguments)}
    prompt_tokens = sum(token_count(text_of(turn.get("content"))) for turn in turns if isinstance(turn, dict))
    usage = {"input_tokens": prompt_tokens, "output_tokens": answer.completion_tokens}
    stop = STOP_REASONS[answer.finish]
    head = {"id": ID, "type": "message", "role": "assistant"}
    plain = {**head, "content": [block], "model": request.get("model"), "stop_reason": stop, "usage": usage}
    start: dict[str, Any] = {**head, "content": [], "model": request.get("model"), "stop_reason": None, "stop_sequence": None}
    events = (
        named_event({"type": "message_start", "message": {**start, "usage": {"input_tokens": prompt_tokens, "output_tokens": 0}}}),
        *_blocks(answer),
        named_event({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}),
        named_event({"type": "message_stop"}),
    )
    return Prepared("chatcmpl-", orjson.dumps(plain), events, answer.completion_tokens)


def _blocks(answer: Answer) -> list[bytes]:
    """The one content block of a streamed message."""
    if answer.tool:
        opening: dict[str, Any] = {"type": "tool_use", "id": answer.tool.call_id, "name": answer.tool.name, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": answer.tool.arguments}]
    else:
        opening = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": token} for token in answer.tokens]
    return [
        named_event({"type": "content_block_start", "index": 0, "content_block": opening}),
        *(named_event({"type": "content_block_delta", "index": 0, "delta": delta}) for delta in deltas),
        named_event({"type": "content_block_stop", "index": 0}),
    ]


def responses(request: Mapping[str, Any], writer: Writer) -> Prepared:
    asked = request.get("input")
    if not isinstance(asked, str | list) or not asked:
        raise RequestError(400, "RequestErrorError", "input is required.", "input")
    prompt, limit = last_user_text(asked), request.get("max_output_tokens")
    answer = writer.write(request, prompt, limit)
    item = _output_item(answer, writer.fingerprint(request))
    finished = _response(request, answer, item, token_count(prompt))
    started = {**finished, "output": [], "status": "in_progress", "usage": None, "incomplete_details": None}
    steps = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
        *_item_steps(answer, item),
        {"type": "response.completed", "response": finished},
    ]
    events = tuple(named_event({**step, "sequence_number": number}) for number, step in enumerate(steps))
    return Prepared("resp_", orjson.dumps(finished), events, answer.completion_tokens, takes_request_id=False)


def _output_item(answer: Answer, mark: str) -> dict[str, Any]:
    if answer.tool:
        call = {"arguments": answer.tool.arguments, "call_id": answer.tool.call_id, "name": answer.tool.name}
        return {**call, "type": "function_call", "id": f"fc_{mark}", "status": "completed"}
    part: dict[str, Any] = {"annotations": [], "text": answer.text, "type": "output_text", "logprobs": None}
    return {"id": f"msg_{mark}", "content": [part], "role": "assistant", "status": "completed", "type": "message", "phase": None}


def _item_steps(answer: Answer, item: dict[str, Any]) -> list[dict[str, Any]]:
    """The events between the start and the end of a response: one output item."""
    where = {"item_id": item["id"], "output_index": 0}
    added = {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress", "content": []}}
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    if answer.tool:
        arguments = answer.tool.arguments
        return [
            {**added, "item": {**item, "status": "in_progress", "arguments": ""}},
            {"type": "response.function_call_arguments.delta", **where, "delta": arguments},
            {"type": "response.function_call_arguments.done", **where, "arguments": arguments, "name": answer.tool.name},
            done,
        ]
    inside = {**where, "content_index": 0}
    empty = {**item["content"][0], "text": ""}
    return [
        added,
        {"type": "response.content_part.added", **inside, "part": empty},
        *({"type": "response.output_text.delta", **inside, "delta": token, "logprobs": []} for token in answer.tokens),
        {"type": "response.output_text.done", **inside, "text": answer.text, "logprobs": []},
        {"type": "response.content_part.done", **inside, "part": item["content"][0]},
        done,
    ]


def _response(request: Mapping[str, Any], answer: Answer, item: dict[str, Any], prompt_tokens: int) -> dict[str, Any]:
    cut = answer.finish == "length"
    output_tokens = answer.completion_tokens
    usage = {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt_tokens + output_tokens,
    }
    return {
        "id": ID,
        "created_at": int(time.time()),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": request.get("instructions"),
        "metadata": request.get("metadata"),
        "model": request.get("model"),
        "object": "response",
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": request.get("temperature", 1.0),
        "tool_choice": request.get("tool_choice", "auto"),
        "tools": request.get("tools", []),
        "top_p": request.get("top_p", 1.0),
        "status": "incomplete" if cut else "completed",
        "usage": usage,
        "user": request.get("user"),
    }
