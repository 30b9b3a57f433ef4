"""The official asynchronous clients rebuild the same object from a miss and a replay of what the tiny model cannot say.

Reasoning, tools, refusals and more: answers of vLLM recorded in tests/sidecar/data/render, and some made up, repeated byte for byte by an
upstream in this process. The rest is in test_fidelity, against the real vLLM.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web

from inference_cache_toolkit.cache_status import read_cache_status

RECORDED = Path(__file__).parents[1] / "sidecar" / "data" / "render"
UNTOLD = {"chat_tool_cut_short", "messages_tool_cut_short", "messages_tool", "completions_echo", "tokenize"}
"""Streams whose plain answer cannot be known, and an endpoint without a client."""
CHANCE = {"id", "created", "created_at", "call_id", "signature", "prompt_tokens_details", "input_tokens_details"}
HEAD = {"id": "chatcmpl-made", "created": 1, "model": "tiny"}
USAGE = {"prompt_tokens": 5, "total_tokens": 8, "completion_tokens": 3}


def made(finish: str, message: dict[str, Any], *deltas: dict[str, Any]) -> dict[str, Any]:
    """A chat answer that no tiny model gives, in both forms."""
    request = {"model": "tiny", "messages": [{"role": "user", "content": "Say something"}]}
    whole = {"role": "assistant", "content": None, "refusal": None, "annotations": None, "audio": None, "function_call": None}
    choice = {"index": 0, "message": whole | message | {"reasoning": None}, "logprobs": None, "finish_reason": finish, "stop_reason": None}
    plain = HEAD | {"object": "chat.completion", "choices": [choice], "usage": USAGE}
    pieces = [({"role": "assistant", "content": ""}, None), *((delta, None) for delta in deltas), ({}, finish)]
    chunks = [
        HEAD | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}]}
        for delta, end in pieces
    ]
    told = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    usage = HEAD | {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    forms = {"stream": f"{told}data: [DONE]\n\n", "usage": f"{told}data: {json.dumps(usage)}\n\ndata: [DONE]\n\n"}
    return {"path": "/v1/chat/completions", "request": request, "plain": json.dumps(plain), **forms}


CALLS = [{"id": f"call_{n}", "type": "function", "function": {"name": "look", "arguments": f'{{"at": {n}}}'}} for n in range(2)]
SAMPLES = {path.stem: json.loads(path.read_text()) for path in sorted(RECORDED.glob("*.json")) if path.stem not in UNTOLD}
SAMPLES |= {
    "made_refusal": made("stop", {"content": "", "refusal": "I cannot help."}, {"refusal": "I cannot"}, {"refusal": " help."}),
    "made_content_filter": made("content_filter", {"content": "Half of"}, {"content": "Half"}, {"content": " of"}),
    "made_two_calls": made("tool_calls", {"tool_calls": CALLS}, *({"tool_calls": [{"index": n, **CALLS[n]}]} for n in range(2))),
    "made_unknown_fields": made("stop", {"content": "Hi", "x_mood": "glad"}, {"content": "Hi", "x_mood": "glad"}),
}


@dataclass
class Recorded:
    """A model server that knows one answer for each sample's name, which the header `x-sample` gives."""

    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if request.method == "GET":
            return web.json_response({"data": [{"id": "tiny", "root": "/models/tiny", "parent": None}]})
        name, body = request.headers["x-sample"], json.loads(await request.read())
        self.asked.append(name)
        sample, options = SAMPLES[name], body.get("stream_options") or {}
        if not body.get("stream"):
            return web.Response(body=sample["plain"].encode(), content_type="application/json")
        form = "running_usage" if options.get("continuous_usage_stats") else "usage" if options.get("include_usage") else "stream"
        return web.Response(body=sample.get(form, sample["stream"]).encode(), content_type="text/event-stream")


@pytest.fixture
async def recorded() -> AsyncIterator[tuple[Recorded, str]]:
    upstream = Recorded()
    runner = web.ServerRunner(web.Server(upstream.answer), shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield upstream, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


class Clients:
    """The official clients of one server, as one tenant that asks for one sample."""

    def __init__(self, url: str, name: str, tenant: str) -> None:
        self.statuses: list[Any] = []
        hooks = {"event_hooks": {"response": [self._note]}}
        fixed = {"api_key": tenant, "max_retries": 0, "default_headers": {"x-sample": name}}
        self.openai = openai.AsyncOpenAI(base_url=f"{url}/v1", http_client=openai.DefaultAsyncHttpxClient(**hooks), **fixed)
        self.anthropic = anthropic.AsyncAnthropic(base_url=url, http_client=anthropic.DefaultAsyncHttpxClient(**hooks), **fixed)
        self._path, self._request = SAMPLES[name]["path"], SAMPLES[name]["request"]

    async def _note(self, response: Any) -> None:
        self.statuses.append(read_cache_status(response.headers.get("Cache-Status")))

    @property
    def hit(self) -> bool:
        return self.statuses[-1].hit

    async def __aenter__(self) -> "Clients":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.openai.close()
        await self.anthropic.close()

    async def ask(self, *, stream: bool) -> Any:
        match self._path.rpartition("/")[2], stream, self._request:
            case "completions", False, {"messages": messages, "model": model, **rest}:
                return (await self.openai.chat.completions.create(model=model, messages=messages, extra_body=rest)).to_dict()
            case "completions", True, {"messages": messages, "model": model, **rest}:
                async with self.openai.chat.completions.stream(model=model, messages=messages, extra_body=rest) as events:
                    async for _ in events:
                        pass
                    return events.current_completion_snapshot.to_dict()
            case "completions", False, {"prompt": prompt, "model": model, **rest}:
                return (await self.openai.completions.create(model=model, prompt=prompt, extra_body=rest)).to_dict()
            case "completions", True, {"prompt": prompt, "model": model, **rest}:
                chunks = await self.openai.completions.create(model=model, prompt=prompt, stream=True, extra_body=rest)
                return joined([chunk.to_dict() async for chunk in chunks])
            case "responses", False, {"input": asked, "model": model, **rest}:
                return (await self.openai.responses.create(model=model, input=asked, extra_body=rest)).to_dict()
            case "responses", True, {"input": asked, "model": model, **rest}:
                async with self.openai.responses.stream(model=model, input=asked, extra_body=rest) as events:
                    return (await events.get_final_response()).to_dict()
            case "messages", False, {"messages": messages, "model": model, "max_tokens": limit, **rest}:
                return (await self.anthropic.messages.create(model=model, messages=messages, max_tokens=limit, extra_body=rest)).to_dict()
            case "messages", True, {"messages": messages, "model": model, "max_tokens": limit, **rest}:
                async with self.anthropic.messages.stream(model=model, messages=messages, max_tokens=limit, extra_body=rest) as events:
                    return (await events.get_final_message()).to_dict()
        raise AssertionError(self._path)


def joined(chunks: list[Any]) -> dict[str, Any]:
    """Texts of a completion put together; the client has no helper for it."""
    texts: dict[int, str] = {}
    ends: dict[int, Any] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        ends[choice["index"]] = choice["finish_reason"]
    return {"id": chunks[0]["id"], "texts": texts, "ends": ends}


def without_chance(value: Any) -> Any:
    """Nor what is null; vLLM streams an empty reasoning as none."""
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if name not in CHANCE and part is not None}
        return {name: without_chance(part) for name, part in kept.items() if name != "reasoning" or part}
    return [without_chance(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", SAMPLES)
async def test_asynchronous_clients_rebuild_the_same_object_from_a_miss_and_a_replay(
    name: str, recorded: tuple[Recorded, str], sidecar_before: Any
) -> None:
    upstream, direct = recorded
    async with sidecar_before(direct) as url:
        async with Clients(direct, name, "direct") as clients:
            plain, streamed = without_chance(await clients.ask(stream=False)), without_chance(await clients.ask(stream=True))
        upstream.asked.clear()
        async with Clients(url, name, "plain first") as clients:
            told = [await clients.ask(stream=stream) for stream in (False, False, True)]
            assert [status.hit for status in clients.statuses] == [False, True, True]
        # A stream of responses ends with the plain answer, and these were recorded one by one.
        assert [without_chance(each) for each in told] == [plain, plain, plain if name.startswith("responses") else streamed]
        async with Clients(url, name, "stream first") as clients:
            told = [await clients.ask(stream=stream) for stream in (True, True, False)]
            assert [status.hit for status in clients.statuses] == [False, True, True]
        assert without_chance(told[0]) == without_chance(told[1]) == streamed
        if not name.startswith(("messages", "responses")):
            assert without_chance(told[2]) == plain
        assert len({each["id"] for each in told}) == 3
        assert upstream.asked == [name, name]
