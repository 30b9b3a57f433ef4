"""The stand-in answers in vLLM's form, at its pace, with the faults it was given."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from inference_cache_contract.endpoints import PATHS
from inference_cache_toolkit.standin.faults import HEADER, Fault
from inference_cache_toolkit.standin.server import FORMS, serving
from inference_cache_toolkit.standin.state import Pace, Standin

QUESTION: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "What is a cache?"}]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
async def http(standin_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(standin_url) as session:
        yield session


@pytest.fixture
async def client(standin_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{standin_url}/v1", api_key="any", max_retries=0) as made:
        yield made


async def text(http: aiohttp.ClientSession, **changes: object) -> str:
    async with http.post("/v1/chat/completions", json=QUESTION | changes) as answer:
        body = await answer.json()
    return str(body["choices"][0]["message"]["content"])


async def test_equal_requests_get_equal_answers_and_a_changed_field_another(http: aiohttp.ClientSession) -> None:
    first = await text(http)
    assert await text(http) == first
    assert await text(http, user="someone else") == first
    assert await text(http, temperature=0.5) != first


async def test_a_model_at_another_root_gives_other_answers(standin: Standin, http: aiohttp.ClientSession) -> None:
    first, started = await text(http), standin.started
    standin.restart(root="/models/other")
    assert await text(http) != first
    assert standin.started > started


@pytest.mark.parametrize("extra", [{}, {"n": 2}, {"logprobs": True}, {"reasoning_effort": "low"}, {"max_tokens": 3}], ids=str)
async def test_stream_and_plain_answer_say_the_same_to_the_official_client(client: openai.AsyncOpenAI, extra: dict[str, Any]) -> None:
    plain = await client.chat.completions.create(**QUESTION, **extra)
    texts, finishes = dict.fromkeys(range(len(plain.choices)), ""), {}
    usage = None
    stream = await client.chat.completions.create(**QUESTION, **extra, stream=True, stream_options={"include_usage": True})
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finishes[choice.index] = choice.finish_reason or finishes.get(choice.index)
    assert texts == {choice.index: choice.message.content for choice in plain.choices}
    assert finishes == {choice.index: choice.finish_reason for choice in plain.choices}
    assert usage is not None
    assert plain.usage is not None
    assert usage.total_tokens == plain.usage.total_tokens


async def test_a_demanded_tool_is_called_in_both_renderings(client: openai.AsyncOpenAI) -> None:
    asked = QUESTION | {"tools": [TOOL], "tool_choice": "required"}
    plain = await client.chat.completions.create(**asked)
    assert plain.choices[0].message.tool_calls
    names = [
        call.function.name
        async for chunk in await client.chat.completions.create(**asked, stream=True)
        for call in chunk.choices[0].delta.tool_calls or []
        if call.function
    ]
    assert names == ["look"]
    assert plain.choices[0].finish_reason == "tool_calls"


async def test_responses_stream_ends_with_the_plain_answer(client: openai.AsyncOpenAI) -> None:
    plain = await client.responses.create(model="tiny", input="What is a cache?")
    streamed = ""
    async for event in await client.responses.create(model="tiny", input="What is a cache?", stream=True):
        if event.type == "response.output_text.delta":
            streamed += event.delta
    assert streamed == plain.output_text != ""


async def test_anthropic_client_rebuilds_the_message_from_the_stream(standin_url: str) -> None:
    asked: dict[str, Any] = {"model": "tiny", "max_tokens": 5, "messages": QUESTION["messages"]}
    async with anthropic.AsyncAnthropic(base_url=standin_url, api_key="any") as client:
        plain = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            rebuilt = await stream.get_final_message()
    assert [block.to_dict() for block in rebuilt.content] == [block.to_dict() for block in plain.content]
    assert rebuilt.stop_reason == plain.stop_reason == "max_tokens"


ITEMWISE: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": ["one", "two"]},
    "/rerank": {"query": "one", "documents": ["one", "two"]},
    "/score": {"text_1": "one", "text_2": ["one", "two"]},
    "/classify": {"input": ["one", "two"]},
}


@pytest.mark.parametrize("path", ITEMWISE)
async def test_item_endpoints_answer_every_item(http: aiohttp.ClientSession, path: str) -> None:
    async with http.post(path, json={"model": "tiny"} | ITEMWISE[path]) as answer:
        body = await answer.json()
    assert len(body.get("data") or body["results"]) == 2


async def test_embedding_of_an_item_does_not_hang_on_its_neighbours(client: openai.AsyncOpenAI) -> None:
    both = await client.embeddings.create(model="tiny", input=["one", "two"])
    alone = await client.embeddings.create(model="tiny", input="two")
    assert both.data[1].embedding == alone.data[0].embedding != both.data[0].embedding


async def test_request_id_becomes_part_of_the_answers_id(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", json=QUESTION, headers={"X-Request-Id": "mine"}) as answer:
        assert (await answer.json())["id"] == "chatcmpl-mine"


async def test_wrong_key_is_refused_as_vllm_refuses_it(standin: Standin, http: aiohttp.ClientSession) -> None:
    standin.api_key = "right"
    async with http.post("/v1/chat/completions", json=QUESTION, headers={"Authorization": "Bearer wrong"}) as answer:
        assert (answer.status, await answer.json()) == (401, {"error": "Unauthorized"})
    async with http.get("/v1/models", headers={"Authorization": "Bearer right"}) as answer:
        assert answer.status == 200
    async with http.get("/health") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"{", 400, id="not JSON"),
        pytest.param(b"[]", 400, id="not an object"),
        pytest.param(b'{"model":"tiny","messages":[]}', 400, id="no message"),
        pytest.param(b'{"model":"nope","messages":[]}', 404, id="unknown model"),
    ],
)
async def test_bad_requests_get_an_error_object(http: aiohttp.ClientSession, body: bytes, status: int) -> None:
    async with http.post("/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["code"] == status


async def test_a_loaded_adapter_is_listed_and_answers_otherwise(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/load_lora_adapter", json={"lora_name": "extra", "lora_path": "/adapters/extra"}) as answer:
        assert answer.status == 200
    async with http.get("/v1/models") as answer:
        roots = {card["id"]: card["root"] for card in (await answer.json())["data"]}
    assert roots == {"tiny": "/models/tiny", "extra": "/adapters/extra"}
    assert await text(http, model="extra") != await text(http)


async def test_stream_keeps_its_pace(standin: Standin, http: aiohttp.ClientSession) -> None:
    await text(http)
    standin.pace = Pace(first_token=0.1, per_token=0.01)
    begin = time.monotonic()
    async with http.post("/v1/chat/completions", json=QUESTION | {"stream": True, "max_tokens": 10}) as answer:
        await answer.content.readline()
        first = time.monotonic() - begin
        await answer.read()
    assert first >= 0.1
    assert time.monotonic() - begin >= 0.2


async def test_calls_are_counted_by_path(standin: Standin, http: aiohttp.ClientSession) -> None:
    await text(http)
    async with http.get("/health"):
        pass
    async with http.get("/standin/calls") as answer:
        assert (await answer.json())["calls"] == {"/v1/chat/completions": 1, "/health": 1}
    assert standin.inferences == 1


async def test_a_caller_that_hangs_up_is_counted(standin: Standin, http: aiohttp.ClientSession) -> None:
    standin.fault = Fault.HANG
    asking = asyncio.create_task(http.post("/v1/chat/completions", json=QUESTION).__aenter__())
    async with asyncio.timeout(60):
        while not standin.seen:
            await asyncio.sleep(0.005)
        asking.cancel()
        await standin.hung_up.wait()
    assert standin.aborted == 1


SHAPES = {
    Fault.STATUS_429: "429 {'error'",
    Fault.STATUS_500: "500 {'error'",
    Fault.STATUS_503: "503 {'error'",
    Fault.RESET: "disconnected",
    Fault.RESET_MID_STREAM: "cut",
    Fault.GARBAGE_SSE: "garbage",
    Fault.ERROR_OBJECT: "200 {'error'",
    Fault.ERROR_MID_STREAM: "error event",
    Fault.NO_DONE: "no done",
    Fault.EMPTY_CHOICES: "no choices",
}


async def shape_of_stream(http: aiohttp.ClientSession, fault: Fault) -> str:
    """What a client notices of a fault."""
    try:
        async with http.post("/v1/chat/completions", json=QUESTION | {"stream": True}, headers={HEADER: fault.value}) as answer:
            body = await answer.read()
            status = answer.status
    except aiohttp.ServerDisconnectedError:
        return "disconnected"
    except aiohttp.ClientPayloadError:
        return "cut"
    if not body.startswith(b"data: "):
        return f"{status} {json.loads(body)!s:.8}"
    if b"{not json" in body:
        return "garbage"
    if b'data: {"error"' in body:
        return "error event"
    return "no choices" if b'"choices":[]' in body else "no done" if b"[DONE]" not in body else "whole"


@pytest.mark.parametrize("fault", SHAPES, ids=lambda fault: fault.value)
async def test_each_fault_shows_its_shape(http: aiohttp.ClientSession, fault: Fault) -> None:
    assert await shape_of_stream(http, fault) == SHAPES[fault]


async def test_a_websocket_is_echoed(http: aiohttp.ClientSession) -> None:
    async with http.ws_connect("/v1/realtime") as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"


async def test_two_standins_run_side_by_side() -> None:
    async with serving(Standin()) as one, serving(Standin(root="/models/other")) as other:
        assert one != other


def test_every_cacheable_path_has_a_form() -> None:

    assert FORMS.keys() == PATHS.keys()
