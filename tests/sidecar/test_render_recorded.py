"""Against answers of the real vLLM: what is assembled from its stream is its plain answer, and what is replayed is its stream."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from anthropic import Anthropic
from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

from inference_cache_contract.endpoints import PATHS
from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.protocol import NotStorable, Renderer, Storable
from inference_cache_sidecar.render.renderers import renderer_for
from inference_cache_sidecar.render.sse import EventSplitter, data_of

SAMPLES = {path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "data/render").glob("*.json"))}
CUT_SHORT = {"chat_tool_cut_short": "length", "messages_tool_cut_short": "shape", "messages_tool": "shape", "completions_echo": "echo"}
"""Streams whose plain answer cannot be known, and the reason given. (The input of messages_tool is no object.)"""
STREAMS = [
    pytest.param(name, kind, id=f"{name}-{kind}")
    for name, sample in SAMPLES.items()
    for kind in ("usage", "running_usage", "stream")
    if kind in sample and not (kind == "stream" and "usage" in sample)
]
WHOLE_STREAMS = [param for param in STREAMS if param.values[0] not in CUT_SHORT]
RENDITIONS = {
    "usage": Rendition(stream=True, include_usage=True),
    "running_usage": Rendition(stream=True, include_usage=True, continuous_usage=True),
    "stream": Rendition(stream=True),
}


def renderer_of(name: str) -> Renderer:
    return renderer_for(PATHS[SAMPLES[name]["path"]], AnswerPolicy(content_filter="Exact"))


def events_of(text: str) -> list[bytes]:
    splitter = EventSplitter()
    events = splitter.feed(text.encode())
    assert splitter.remainder == b""
    return events


def assembled(name: str, kind: str) -> Storable | NotStorable:
    assembler = renderer_of(name).assembler()
    for event in events_of(SAMPLES[name][kind]):
        assembler.feed(event)
    return assembler.result()


def without_random(value: Any) -> Any:
    """Ids and signatures differ between two calls; so does what was cached of the prompt by then."""
    if isinstance(value, dict):
        dropped = ("prompt_tokens_details", "input_tokens_details")
        return {k: "…" if k in ("id", "call_id", "signature") else without_random(v) for k, v in value.items() if k not in dropped}
    return [without_random(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("name", "kind"), [param for param in WHOLE_STREAMS if not param.values[0].startswith("responses")])
def test_a_stream_is_assembled_into_the_plain_answer(name: str, kind: str) -> None:
    kept = assembled(name, kind)
    assert isinstance(kept, Storable)
    plain = json.loads(SAMPLES[name]["plain"])
    ours = json.loads(kept.answer)
    if name.startswith("chat_reasoning"):
        # An empty reasoning is streamed as none.
        plain["choices"][0]["message"]["reasoning"] = plain["choices"][0]["message"]["reasoning"] or None
    assert without_random(ours) == without_random(plain)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("responses")])
def test_a_stream_of_responses_holds_its_plain_answer(name: str) -> None:
    kept = assembled(name, "stream")
    assert isinstance(kept, Storable)
    last = [json.loads(data_of(event) or b"") for event in events_of(SAMPLES[name]["stream"])][-1]
    assert json.loads(kept.answer) == last["response"]
    assert kept.completion_tokens == last["response"]["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(("name", "reason"), CUT_SHORT.items())
def test_a_stream_that_does_not_tell_its_plain_answer_is_not_kept(name: str, reason: str) -> None:
    assert assembled(name, "usage" if "usage" in SAMPLES[name] else "stream") == NotStorable(reason)


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if name != "messages_tool"])
def test_a_plain_answer_is_stored_and_replayed_in_its_own_bytes(name: str) -> None:
    renderer = renderer_of(name)
    body = SAMPLES[name]["plain"].encode()
    kept = renderer.from_plain(body)
    assert isinstance(kept, Storable)
    assert kept.answer == body
    replay = renderer.plain(kept.answer, kept.answer_id, "fresh")
    assert replay == (body.replace(b'"' + kept.answer_id.encode() + b'"', b'"fresh"', 1) if kept.answer_id else body)
    assert renderer.plain(replay, "fresh" if kept.answer_id else "", kept.answer_id) == body


def answering(stream: bytes) -> httpx.Client:
    """A client whose every request is answered by `stream`."""
    headers = {"content-type": "text/event-stream"}
    return httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=stream)))


def openai_client(stream: bytes) -> OpenAI:
    return OpenAI(api_key="none", base_url="http://none", http_client=answering(stream), max_retries=0)


def chat_snapshot(stream: bytes) -> Any:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in openai_client(stream).chat.completions.create(model="tiny", messages=[], stream=True):
        state.handle_chunk(chunk)
    return state.current_completion_snapshot.to_dict()


def completion_snapshot(stream: bytes) -> Any:
    """The official client has no accumulator for completions: texts and lists added up, the rest as last said."""
    whole: dict[str, Any] = {"choices": {}}
    for completion in openai_client(stream).completions.create(model="tiny", prompt="", stream=True):
        chunk: Any = completion.to_dict()
        for choice in chunk.pop("choices"):
            held = whole["choices"].setdefault(choice["index"], {"text": "", "token_ids": [], "tokens": [], "offsets": []})
            held["text"] += choice["text"]
            held["token_ids"] += choice.get("token_ids") or []
            held["tokens"] += (choice.get("logprobs") or {}).get("tokens") or []
            held["offsets"] += (choice.get("logprobs") or {}).get("text_offset") or []
            held |= {key: choice[key] for key in ("finish_reason", "stop_reason") if choice.get(key) is not None}
        whole |= {key: value for key, value in chunk.items() if value is not None}
    return whole


def responses_snapshot(stream: bytes) -> Any:
    with openai_client(stream).responses.stream(model="tiny", input="") as events:
        return events.get_final_response().to_dict()


def message_snapshot(stream: bytes) -> Any:
    client = Anthropic(api_key="none", base_url="http://none", http_client=answering(stream), max_retries=0)
    with client.messages.stream(model="tiny", max_tokens=1, messages=[]) as events:
        return events.get_final_message().to_dict()


def snapshot_of(name: str, stream: bytes) -> Any:
    match PATHS[SAMPLES[name]["path"]].value:
        case "chat":
            return chat_snapshot(stream)
        case "completions":
            return completion_snapshot(stream)
        case "responses":
            return responses_snapshot(stream)
        case _:
            return message_snapshot(stream)


@pytest.mark.parametrize(("name", "kind"), WHOLE_STREAMS)
def test_the_official_client_rebuilds_the_same_object_from_a_replay(name: str, kind: str) -> None:
    kept = assembled(name, kind)
    assert isinstance(kept, Storable)
    replay = renderer_of(name).stream(kept.answer, kept.answer_id, kept.answer_id, RENDITIONS[kind])
    assert snapshot_of(name, replay) == snapshot_of(name, SAMPLES[name][kind].encode())


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if "usage" in sample and name not in CUT_SHORT])
def test_the_official_client_rebuilds_the_same_object_without_usage(name: str) -> None:
    kept = assembled(name, "usage")
    assert isinstance(kept, Storable)
    replay = renderer_of(name).stream(kept.answer, "old", "same", RENDITIONS["stream"])
    recorded = re.sub(r'"id":"(chatcmpl|cmpl)-[0-9a-f]+"', '"id":"same"', SAMPLES[name]["stream"]).encode()
    assert without_random(snapshot_of(name, replay)) == without_random(snapshot_of(name, recorded))


def normal(stream: bytes) -> list[Any]:
    return [
        data if data == b"[DONE]" else without_random(json.loads(data)) for event in events_of(stream.decode()) if (data := data_of(event))
    ]


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if "usage" in sample and sample["request"].get("n", 1) == 1])
def test_a_live_view_without_usage_is_what_vllm_streams_without_usage(name: str) -> None:
    view = renderer_of(name).live(RENDITIONS["stream"], None)
    seen = b"".join(view.feed(event) for event in events_of(SAMPLES[name]["usage"])) + view.finish()
    recorded = SAMPLES[name]["stream"].encode()
    assert normal(seen) == normal(recorded)
    assert re.sub(rb'"id":"[^"]*"', b"", seen) == re.sub(rb'"id":"[^"]*"', b"", recorded)


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if "running_usage" in sample])
def test_a_live_view_of_running_usage_can_do_without_it(name: str) -> None:
    view = renderer_of(name).live(RENDITIONS["usage"], None)
    seen = b"".join(view.feed(event) for event in events_of(SAMPLES[name]["running_usage"])) + view.finish()
    assert normal(seen)[-2]["usage"]["completion_tokens"] > 0
    assert all("usage" not in chunk for chunk in normal(seen)[:-2])
    recorded = snapshot_of(name, SAMPLES[name]["usage"].encode())
    assert without_random(snapshot_of(name, seen)) == without_random(recorded)


@pytest.mark.parametrize(("name", "kind"), STREAMS)
def test_a_leaders_view_with_usage_is_upstreams_own_bytes(name: str, kind: str) -> None:
    view = renderer_of(name).live(RENDITIONS["running_usage"], None)
    stream = SAMPLES[name][kind].encode()
    assert b"".join(view.feed(event) for event in events_of(stream.decode())) + view.finish() == stream


@pytest.mark.parametrize(("name", "kind"), STREAMS)
def test_a_followers_view_differs_in_the_id_alone(name: str, kind: str) -> None:
    view = renderer_of(name).live(RENDITIONS["running_usage"], "fresh")
    stream = SAMPLES[name][kind].encode()
    seen = b"".join(view.feed(event) for event in events_of(stream.decode())) + view.finish()
    old = re.search(rb'"id":"((?:chatcmpl|cmpl|resp)[-_][0-9a-f]+)"', stream)
    assert old is not None
    assert seen == stream.replace(b'"id":"' + old[1] + b'"', b'"id":"fresh"')
    assert old[1] not in seen
