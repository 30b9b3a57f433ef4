"""What must not be stored is not stored, and nothing that upstream sends makes an assembler raise or grow."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_cache_contract.endpoints import PATHS, Endpoint
from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.protocol import NotStorable, Reach, Storable
from inference_cache_sidecar.render.renderers import renderer_for
from inference_cache_sidecar.render.sse import EventSplitter, data_of

pytestmark = pytest.mark.slow

USAGE = {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2}
STREAMED = [Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.MESSAGES]


def chat(finish_reason: Any = "stop", message: Any = None, **top: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"} if message is None else message, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": USAGE, **top}


def completion(finish_reason: Any = "stop", **top: Any) -> dict[str, Any]:
    return {"id": "cmpl-1", "choices": [{"index": 0, "text": "hi", "finish_reason": finish_reason}], "usage": USAGE, **top}


def message(stop_reason: Any = "end_turn", **top: Any) -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 2}
    return {"id": "m", "type": "message", "content": [{"type": "text", "text": "hi"}], "stop_reason": stop_reason, "usage": usage, **top}


def response(status: Any = "completed", **top: Any) -> dict[str, Any]:
    output = [{"type": "message", "id": "o", "content": [{"type": "output_text", "text": "hi"}]}]
    return {
        "id": "resp_1",
        "object": "response",
        "status": status,
        "output": output,
        "usage": {"input_tokens": 3, "output_tokens": 2},
        **top,
    }


def cut_short(reason: str) -> dict[str, Any]:
    return response("incomplete", incomplete_details={"reason": reason})


CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}
TOOL_USE = [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]
EMBEDDINGS = {"id": "embd-1", "object": "list", "data": [{"index": 0, "embedding": [0.5]}], "usage": USAGE}


@pytest.mark.parametrize(
    ("endpoint", "answer", "judged"),
    [
        pytest.param(Endpoint.CHAT, chat(), Reach.ALL, id="chat"),
        pytest.param(Endpoint.CHAT, chat("length"), Reach.EXACT, id="chat-length"),
        pytest.param(Endpoint.CHAT, chat("tool_calls"), Reach.EXACT, id="chat-tool-calls"),
        pytest.param(Endpoint.CHAT, chat("stop", CALL), Reach.EXACT, id="chat-named-tool"),
        pytest.param(Endpoint.CHAT, chat("content_filter"), "content-filter", id="chat-content-filter"),
        pytest.param(Endpoint.CHAT, chat("abort"), "finish-reason", id="chat-abort"),
        pytest.param(Endpoint.CHAT, chat("error"), "finish-reason", id="chat-error-reason"),
        pytest.param(Endpoint.CHAT, chat(None), "finish-reason", id="chat-no-reason"),
        pytest.param(Endpoint.CHAT, chat(["stop"]), "finish-reason", id="chat-odd-reason"),
        pytest.param(Endpoint.CHAT, chat(choices=[]), "no-choices", id="chat-empty"),
        pytest.param(Endpoint.CHAT, chat(choices=[7]), "shape", id="chat-odd-choice"),
        pytest.param(Endpoint.CHAT, chat(message="hi"), "shape", id="chat-odd-message"),
        pytest.param(Endpoint.CHAT, chat(error={"message": "no"}), "error", id="chat-error-beside"),
        pytest.param(Endpoint.CHAT, {"error": {"message": "no"}}, "error", id="chat-error"),
        pytest.param(Endpoint.CHAT, {"object": "error", "message": "no"}, "error", id="chat-old-error"),
        pytest.param(Endpoint.CHAT, [chat()], "shape", id="chat-list"),
        pytest.param(Endpoint.CHAT, completion(), "shape", id="chat-but-completion"),
        pytest.param(Endpoint.COMPLETIONS, completion(), Reach.ALL, id="completions"),
        pytest.param(Endpoint.COMPLETIONS, completion("length"), Reach.EXACT, id="completions-length"),
        pytest.param(Endpoint.COMPLETIONS, completion("repetition"), Reach.EXACT, id="completions-repetition"),
        pytest.param(Endpoint.COMPLETIONS, completion("abort"), "finish-reason", id="completions-abort"),
        pytest.param(Endpoint.COMPLETIONS, chat(), "shape", id="completions-but-chat"),
        pytest.param(Endpoint.MESSAGES, message(), Reach.ALL, id="messages"),
        pytest.param(Endpoint.MESSAGES, message("stop_sequence"), Reach.ALL, id="messages-stop-sequence"),
        pytest.param(Endpoint.MESSAGES, message("max_tokens"), Reach.EXACT, id="messages-max-tokens"),
        pytest.param(Endpoint.MESSAGES, message("tool_use"), Reach.EXACT, id="messages-tool-use"),
        pytest.param(Endpoint.MESSAGES, message(content=TOOL_USE), Reach.EXACT, id="messages-tool-block"),
        pytest.param(Endpoint.MESSAGES, message("refusal"), "content-filter", id="messages-refusal"),
        pytest.param(Endpoint.MESSAGES, message("pause_turn"), "finish-reason", id="messages-pause"),
        pytest.param(Endpoint.MESSAGES, message(content=[]), "no-choices", id="messages-empty"),
        pytest.param(Endpoint.MESSAGES, {"type": "error", "error": {"type": "x"}}, "error", id="messages-error"),
        pytest.param(Endpoint.RESPONSES, response(), Reach.ALL, id="responses"),
        pytest.param(Endpoint.RESPONSES, cut_short("max_output_tokens"), Reach.EXACT, id="responses-length"),
        pytest.param(Endpoint.RESPONSES, cut_short("content_filter"), "content-filter", id="responses-content-filter"),
        pytest.param(Endpoint.RESPONSES, response("incomplete"), "finish-reason", id="responses-incomplete-without-reason"),
        pytest.param(Endpoint.RESPONSES, response(output=[{"type": "function_call"}]), Reach.EXACT, id="responses-tool"),
        pytest.param(Endpoint.RESPONSES, response("in_progress"), "finish-reason", id="responses-in-progress"),
        pytest.param(Endpoint.RESPONSES, response("failed", error={"code": "x"}), "error", id="responses-failed"),
        pytest.param(Endpoint.RESPONSES, response(output=[]), "no-choices", id="responses-empty"),
        pytest.param(Endpoint.EMBEDDINGS, EMBEDDINGS, Reach.ALL, id="embeddings"),
        pytest.param(Endpoint.EMBEDDINGS, {**EMBEDDINGS, "data": []}, "no-choices", id="embeddings-empty"),
        pytest.param(Endpoint.SCORE, {"id": "score-1", "data": [{"index": 0, "score": 0.5}]}, Reach.ALL, id="score"),
        pytest.param(Endpoint.CLASSIFY, {"id": "classify-1", "data": [{"label": "x"}]}, Reach.ALL, id="classify"),
        pytest.param(Endpoint.RERANK, {"id": "score-1", "results": [{"index": 0}]}, Reach.ALL, id="rerank"),
        pytest.param(Endpoint.RERANK, {"id": "score-1", "data": [{"index": 0}]}, "shape", id="rerank-odd"),
        pytest.param(Endpoint.TOKENIZE, {"count": 0, "tokens": []}, Reach.ALL, id="tokenize-nothing"),
        pytest.param(Endpoint.TOKENIZE, {"detail": "Not Found"}, "shape", id="tokenize-odd"),
    ],
)
def test_plain_answers_are_judged(endpoint: Endpoint, answer: Any, judged: Reach | str) -> None:
    body = json.dumps(answer).encode()
    kept = renderer_for(endpoint, AnswerPolicy()).from_plain(body)
    if isinstance(judged, str):
        assert kept == NotStorable(judged)
    else:
        assert isinstance(kept, Storable)
        assert (kept.answer, kept.reach) == (body, judged)


@pytest.mark.parametrize("endpoint", STREAMED)
def test_tokens_are_counted(endpoint: Endpoint) -> None:
    answer = {Endpoint.CHAT: chat(), Endpoint.COMPLETIONS: completion(), Endpoint.RESPONSES: response(), Endpoint.MESSAGES: message()}[
        endpoint
    ]
    kept = renderer_for(endpoint, AnswerPolicy()).from_plain(json.dumps(answer).encode())
    assert isinstance(kept, Storable)
    assert (kept.prompt_tokens, kept.completion_tokens) == (3, 2)


@pytest.mark.parametrize(
    ("policy", "answer", "judged"),
    [
        pytest.param(AnswerPolicy(length="All"), chat("length"), Reach.ALL, id="length-all"),
        pytest.param(AnswerPolicy(length="Never"), chat("length"), NotStorable("length"), id="length-never"),
        pytest.param(AnswerPolicy(tool_calls="Never"), chat("stop", CALL), NotStorable("tool-calls"), id="tools-never"),
        pytest.param(AnswerPolicy(content_filter="Exact"), chat("content_filter"), Reach.EXACT, id="filter-exact"),
        pytest.param(AnswerPolicy(max_answer_bytes=10), chat(), NotStorable("too-large"), id="too-large"),
    ],
)
def test_the_policy_decides(policy: AnswerPolicy, answer: Any, judged: Reach | NotStorable) -> None:
    kept = renderer_for(Endpoint.CHAT, policy).from_plain(json.dumps(answer).encode())
    assert (kept.reach if isinstance(kept, Storable) else kept) == judged


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 2000, b'{"a":NaN}', b"<html>"])
@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_what_is_no_json_is_not_kept(endpoint: Endpoint, body: bytes) -> None:
    assert renderer_for(endpoint, AnswerPolicy()).from_plain(body) == NotStorable("not-json")


def events(*datas: Any) -> list[bytes]:
    return [b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n" for data in datas]


def assembled(endpoint: Endpoint, feed: list[bytes], policy: AnswerPolicy | None = None) -> Storable | NotStorable:
    assembler = renderer_for(endpoint, policy or AnswerPolicy()).assembler()
    for event in feed:
        assembler.feed(event)
    return assembler.result()


def chunk(text: str, finish_reason: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish_reason}]}


LAST: dict[str, Any] = {"id": "chatcmpl-1", "choices": [], "usage": USAGE}
DONE = b"[DONE]"


@pytest.mark.parametrize(
    ("datas", "reason"),
    [
        pytest.param([chunk("hi", "stop"), LAST], "unfinished", id="no-done"),
        pytest.param([], "unfinished", id="nothing"),
        pytest.param([LAST, DONE], "no-choices", id="no-choices"),
        pytest.param([chunk("hi"), LAST, DONE], "finish-reason", id="no-finish-reason"),
        pytest.param([chunk("hi", "stop"), chunk("hi", index=1), LAST, DONE], "finish-reason", id="one-of-two-unfinished"),
        pytest.param([chunk("hi", "stop", index=1), LAST, DONE], "shape", id="first-of-two-missing"),
        pytest.param([chunk("hi", "abort"), LAST, DONE], "finish-reason", id="aborted"),
        pytest.param([chunk("hi", "stop"), DONE], "no-usage", id="no-usage"),
        pytest.param([chunk("hi"), {"error": {"message": "no"}}, DONE], "error", id="error-event"),
        pytest.param([chunk("hi", "stop"), b'{"id":', LAST, DONE], "garbage", id="broken-json"),
        pytest.param([chunk("hi", "stop"), [1], LAST, DONE], "garbage", id="odd-json"),
        pytest.param([chunk("hi", "stop"), LAST, DONE, chunk("more")], "garbage", id="after-the-end"),
        pytest.param([{"choices": [{"delta": {}}]}, LAST, DONE], "garbage", id="no-index"),
    ],
)
def test_incomplete_streams_are_not_kept(datas: list[Any], reason: str) -> None:
    assert assembled(Endpoint.CHAT, events(*datas)) == NotStorable(reason)


def test_a_stream_in_order_is_kept() -> None:
    kept = assembled(Endpoint.CHAT, events(chunk("h"), chunk("i", "stop"), LAST, DONE))
    assert isinstance(kept, Storable)
    assert json.loads(kept.answer)["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize(
    ("endpoint", "datas", "reason"),
    [
        pytest.param(Endpoint.RESPONSES, [{"type": "response.created", "response": {}}], "unfinished", id="responses-unfinished"),
        pytest.param(Endpoint.RESPONSES, [{"type": "response.failed", "response": {}}], "error", id="responses-failed"),
        pytest.param(Endpoint.RESPONSES, [{"type": "error", "message": "no"}], "error", id="responses-error"),
        pytest.param(Endpoint.RESPONSES, [b"{", {"type": "response.completed", "response": response()}], "garbage", id="responses-garbage"),
        pytest.param(Endpoint.RESPONSES, [{"type": "response.completed"}], "not-json", id="responses-without-response"),
        pytest.param(
            Endpoint.MESSAGES, [{"type": "message_start", "message": message(content=[])}], "unfinished", id="messages-unfinished"
        ),
        pytest.param(Endpoint.MESSAGES, [{"type": "error", "error": {}}], "error", id="messages-error"),
        pytest.param(
            Endpoint.MESSAGES,
            [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}}],
            "garbage",
            id="messages-no-block",
        ),
        pytest.param(Endpoint.MESSAGES, [{"type": "message_stop"}], "unfinished", id="messages-no-start"),
        pytest.param(Endpoint.EMBEDDINGS, [EMBEDDINGS, DONE], "shape", id="embeddings-are-not-streamed"),
    ],
)
def test_other_incomplete_streams_are_not_kept(endpoint: Endpoint, datas: list[Any], reason: str) -> None:
    assert assembled(endpoint, events(*datas)) == NotStorable(reason)


NAMES = [
    "id",
    "choices",
    "index",
    "delta",
    "message",
    "content",
    "tool_calls",
    "logprobs",
    "finish_reason",
    "usage",
    "type",
    "response",
    "output",
    "status",
    "content_block",
    "stop_reason",
    "text",
    "function_call",
    "prompt_tokens_details",
    "token_logprobs",
    "input",
    "partial_json",
    "incomplete_details",
    "reason",
]
WORDS = [
    "stop",
    "completed",
    "incomplete",
    "response.completed",
    "message",
    "message_start",
    "content_block_start",
    "content_block_delta",
    "text_delta",
    "tool_use",
]
ODD_CHUNKS = st.recursive(
    st.none() | st.integers(-3, 3) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=14,
)


@pytest.mark.parametrize("endpoint", STREAMED)
@given(datas=st.lists(ODD_CHUNKS | st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")), max_size=6))
@settings(max_examples=150)
def test_garbage_never_raises(endpoint: Endpoint, datas: list[Any]) -> None:
    feed = events(*datas, LAST, DONE)
    assembled(endpoint, feed)
    for rendition in (Rendition(stream=True), Rendition(stream=True, include_usage=True)):
        view = renderer_for(endpoint, AnswerPolicy()).live(rendition, "fresh")
        for event in feed:
            view.feed(event)
        view.finish()


@pytest.mark.parametrize("endpoint", list(Endpoint))
@given(body=st.binary(max_size=30) | ODD_CHUNKS.map(lambda odd: json.dumps(odd).encode()))
@settings(max_examples=40)
def test_plain_garbage_never_raises(endpoint: Endpoint, body: bytes) -> None:
    renderer_for(endpoint, AnswerPolicy()).from_plain(body)


def test_deep_nesting_never_raises() -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"delta": deep}
    nested = b'{"choices":[{"index":0,"delta":' + b'{"a":' * 1010 + b"1" + b"}" * 1010 + b"}]}"
    assert isinstance(assembled(Endpoint.CHAT, events(nested, LAST, DONE)), NotStorable)
    assert isinstance(assembled(Endpoint.CHAT, events({"choices": [{"index": 0, **deep}]}, LAST, DONE)), NotStorable)


@pytest.mark.parametrize("text", ["word ", "x" * 5000], ids=["many-small", "some-large"])
def test_an_endless_stream_is_given_up_in_bounded_memory(text: str) -> None:
    limit = 200_000
    event = events(chunk(text))[0]
    assembler = renderer_for(Endpoint.CHAT, AnswerPolicy(max_answer_bytes=limit)).assembler()
    tracemalloc.start()
    for _ in range(limit // len(text)):
        assembler.feed(event)
    assert tracemalloc.get_traced_memory()[0] < 3 * limit
    for _ in range(10_000):
        assembler.feed(event)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after < 20_000
    assert assembler.result() == NotStorable("too-large")


def test_growing_lists_and_new_fields_count_against_the_limit() -> None:
    policy = AnswerPolicy(max_answer_bytes=10_000)
    lists = [{"choices": [{"index": 0, "delta": {}, "token_ids": list(range(100))}]} for _ in range(100)]
    fields = [{"choices": [{"index": 0, "delta": {f"field{number}": number}}]} for number in range(2000)]
    tops = [{"choices": [], f"field{number}": "x" * 50} for number in range(200)]
    choices = [chunk("", index=number) for number in range(200)]
    for datas in (lists, fields, tops, choices):
        assert assembled(Endpoint.CHAT, events(*datas), policy) == NotStorable("too-large")


SAMPLES = [json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "data/render").glob("*.json"))]
PLAIN = [(PATHS[sample["path"]], sample["plain"]) for sample in SAMPLES]
STREAMS = [(PATHS[sample["path"]], sample.get("usage", sample.get("stream"))) for sample in SAMPLES if "stream" in sample]
ODD_VALUES = st.sampled_from([None, 0, -1, 1.5, True, "", "x", [], [1], [{}], {}, {"a": 1}, {"index": "x"}, [[]], [None]])


def spoilt(value: Any, draw: Callable[[Any], Any]) -> Any:
    """`value` with one part somewhere inside replaced by an odd one, or left out."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        rest = {name: other for name, other in value.items() if name != key}
        return {**rest, key: spoilt(value[key], draw)} if draw(st.integers(0, 5)) else rest
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], spoilt(value[place], draw), *value[place + 1 :]]
    return draw(ODD_VALUES)


@given(sample=st.sampled_from(PLAIN), data=st.data())
@settings(max_examples=400)
def test_whatever_is_kept_can_be_replayed(sample: tuple[Endpoint, str], data: st.DataObject) -> None:
    endpoint, plain = sample
    renderer = renderer_for(endpoint, AnswerPolicy())
    kept = renderer.from_plain(json.dumps(spoilt(json.loads(plain), data.draw)).encode())
    if isinstance(kept, Storable):
        for running in (False, True):
            renderer.stream(kept.answer, kept.answer_id, "fresh", Rendition(stream=True, include_usage=running, continuous_usage=running))
        renderer.plain(kept.answer, kept.answer_id, "fresh")


@given(sample=st.sampled_from(STREAMS), data=st.data())
@settings(max_examples=400)
def test_a_spoilt_stream_never_raises_and_what_is_kept_of_it_can_be_replayed(sample: tuple[Endpoint, str], data: st.DataObject) -> None:
    endpoint, stream = sample
    feed = EventSplitter().feed(stream.encode())
    place = data.draw(st.integers(0, len(feed) - 1))
    said = data_of(feed[place])
    if said is not None and said != DONE:
        feed[place] = events(spoilt(json.loads(said), data.draw))[0]
    kept = assembled(endpoint, feed)
    if isinstance(kept, Storable):
        renderer_for(endpoint, AnswerPolicy()).stream(kept.answer, kept.answer_id, "fresh", Rendition(stream=True))
