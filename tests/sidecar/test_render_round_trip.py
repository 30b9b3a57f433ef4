"""For answers of any content: what a replay says, assembled again, is the answer it was made from."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.protocol import Storable
from inference_cache_sidecar.render.renderers import renderer_for
from inference_cache_sidecar.render.sse import EventSplitter

pytestmark = pytest.mark.slow

KEEP_ALL = AnswerPolicy(length="All", tool_calls="All", content_filter="All")
QUICK = settings(max_examples=60)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"id":"chatcmpl-old"', "data: [DONE]\n\n", "\r\n\r\n", '"usage":', "\\", "\x00\u2028é😀", '{"finish_reason":"stop"}']
)
numbers = st.integers(-(2**63), 2**63 - 1)
scalars = st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | texts
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2), max_leaves=4
)
unknown = st.dictionaries(st.sampled_from(["x_one", "x_two"]), anything, max_size=2)
token_ids = st.lists(st.integers(0, 200_000), max_size=4)
small = st.integers(0, 10**6)


@st.composite
def usages(draw: st.DrawFn) -> dict[str, Any]:
    prompt, completion = draw(small), draw(small)
    details = st.fixed_dictionaries({"cached_tokens": small, "created_cache_tokens": st.none() | small, "multimodal_tokens": st.none()})
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": draw(st.none() | details),
        "completion_tokens_details": draw(st.none() | st.fixed_dictionaries({"reasoning_tokens": small})),
    }


tokens = st.fixed_dictionaries(
    {
        "token": texts,
        "logprob": st.floats(-9999, 0),
        "bytes": st.none() | st.lists(st.integers(0, 255), max_size=3),
        "top_logprobs": st.lists(st.fixed_dictionaries({"token": texts, "logprob": st.floats(-9999, 0)}), max_size=2),
    }
)
chat_logprobs = st.none() | st.fixed_dictionaries({"content": st.none() | st.lists(tokens, max_size=3)})
calls = st.lists(
    st.builds(
        lambda id_, name, arguments, extra: {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}, **extra},
        texts,
        texts,
        texts,
        unknown,
    ),
    min_size=1,
    max_size=3,
)


@st.composite
def chat_messages(draw: st.DrawFn) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": draw(st.none() | texts),
        "refusal": draw(st.none() | texts),
        "annotations": draw(st.none() | st.lists(st.fixed_dictionaries({"type": texts}), max_size=2)),
        "audio": draw(st.none() | st.fixed_dictionaries({"id": texts, "data": texts, "transcript": texts})),
        "function_call": None,
    }
    if draw(st.booleans()):
        message["tool_calls"] = draw(calls)
    message["reasoning"] = draw(st.none() | texts)
    if draw(st.booleans()):
        message["reasoning_content"] = draw(texts)
    return {**message, **draw(unknown)}


@st.composite
def chat_answers(draw: st.DrawFn) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": message,
            "logprobs": draw(chat_logprobs),
            # Half a tool call is never kept from a stream.
            "finish_reason": draw(
                st.sampled_from(["stop", "tool_calls", "content_filter"] + ([] if "tool_calls" in message else ["length"]))
            ),
            "stop_reason": draw(st.none() | texts | small),
            "token_ids": draw(st.none() | token_ids),
            "routed_experts": draw(st.none() | texts),
            **draw(unknown),
        }
        for index, message in enumerate(draw(st.lists(chat_messages(), min_size=1, max_size=3)))
    ]
    return {
        "id": "chatcmpl-old",
        "object": "chat.completion",
        "created": draw(small),
        "model": draw(texts),
        "choices": choices,
        "service_tier": draw(st.none() | texts),
        "system_fingerprint": draw(st.none() | texts),
        "usage": draw(usages()),
        "prompt_logprobs": draw(st.none() | st.lists(st.none() | st.dictionaries(st.sampled_from("12"), anything, max_size=1), max_size=2)),
        "prompt_token_ids": draw(st.none() | token_ids),
        "prompt_text": draw(st.none() | texts),
        "kv_transfer_params": draw(st.none() | unknown),
        "ec_transfer_params": None,
        "metrics": draw(st.none() | st.fixed_dictionaries({"queue_time_ms": st.floats(0, 9)})),
        **draw(unknown),
    }


@st.composite
def completion_answers(draw: st.DrawFn) -> dict[str, Any]:
    choices = []
    for index in range(draw(st.integers(1, 3))):
        ids = draw(st.none() | token_ids)
        logprobs = st.fixed_dictionaries(
            {"text_offset": token_ids, "token_logprobs": st.lists(st.floats(-9999, 0), max_size=3), "tokens": st.lists(texts, max_size=3)}
        )
        choices.append(
            {
                "index": index,
                "text": draw(texts),
                "logprobs": draw(st.none() | logprobs),
                "finish_reason": draw(st.sampled_from(["stop", "length"])),
                "stop_reason": draw(st.none() | texts | small),
                "token_ids": ids,
                "prompt_logprobs": None,
                "prompt_token_ids": None if ids is None else draw(token_ids),
                "routed_experts": draw(st.none() | texts),
                **draw(unknown),
            }
        )
    return {
        "id": "cmpl-old",
        "object": "text_completion",
        "created": draw(small),
        "model": draw(texts),
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": draw(st.none() | texts),
        "usage": draw(usages()),
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
        **draw(unknown),
    }


blocks = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}, optional={"citations": st.lists(unknown, min_size=1, max_size=2)}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": texts}, optional={"signature": texts.filter(bool)}),
    st.fixed_dictionaries(
        {
            "type": st.just("tool_use"),
            "id": texts,
            "name": texts,
            "input": st.dictionaries(st.sampled_from("abc"), anything | st.integers(-(10**40), 10**40), max_size=3),
        }
    ),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": texts}),
)


@st.composite
def message_answers(draw: st.DrawFn) -> dict[str, Any]:
    stop = draw(
        st.sampled_from(
            [{"stop_reason": "end_turn"}, {"stop_reason": "max_tokens"}, {"stop_reason": "stop_sequence", "stop_sequence": "."}]
        )
    )
    return {
        "id": "chatcmpl-old",
        "type": "message",
        "role": "assistant",
        "content": draw(st.lists(blocks, min_size=1, max_size=3)),
        "model": draw(texts),
        **stop,
        "usage": draw(st.fixed_dictionaries({"input_tokens": small, "output_tokens": small}, optional={"cache_read_input_tokens": small})),
    }


parts = st.one_of(
    st.fixed_dictionaries(
        {"annotations": st.just([]), "text": texts, "type": st.just("output_text"), "logprobs": st.none() | st.lists(tokens, max_size=2)}
    ),
    st.fixed_dictionaries({"type": st.just("refusal"), "refusal": texts}),
    st.fixed_dictionaries({"type": st.just("output_audio"), "data": texts}),
)
items = st.one_of(
    st.fixed_dictionaries(
        {"id": texts, "type": st.just("message"), "status": st.just("completed"), "content": st.lists(parts, max_size=2)}
    ),
    st.fixed_dictionaries(
        {"id": texts, "type": st.just("function_call"), "name": texts, "arguments": texts, "call_id": texts, "status": texts}
    ),
    st.fixed_dictionaries({"id": texts, "type": st.just("custom_tool_call"), "name": texts, "input": texts}),
    st.fixed_dictionaries(
        {
            "id": texts,
            "type": st.just("reasoning"),
            "summary": st.lists(st.fixed_dictionaries({"type": st.just("summary_text"), "text": texts}), max_size=1),
            "content": st.none() | st.lists(st.fixed_dictionaries({"type": st.just("reasoning_text"), "text": texts}), max_size=1),
        }
    ),
    st.fixed_dictionaries({"type": st.just("web_search_call")}),
)
response_answers = st.builds(
    lambda output, model, extra: {
        "id": "resp_old",
        "object": "response",
        "status": "completed",
        "model": model,
        "output": output,
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        **extra,
    },
    st.lists(items, min_size=1, max_size=3),
    texts,
    st.dictionaries(st.sampled_from(["x_one", "x_two"]), anything | st.integers(-(10**40), 10**40), max_size=2),
)

RENDITIONS = [
    pytest.param(Rendition(stream=True, include_usage=True), id="usage"),
    pytest.param(Rendition(stream=True, include_usage=True, continuous_usage=True), id="running-usage"),
]


def events_of(stream: bytes) -> list[bytes]:
    splitter = EventSplitter()
    events = splitter.feed(stream)
    assert splitter.remainder == b""
    return events


def there_and_back(endpoint: Endpoint, answer: dict[str, Any], rendition: Rendition) -> Any:
    renderer = renderer_for(endpoint, KEEP_ALL)
    kept = renderer.from_plain(json.dumps(answer).encode())
    assert isinstance(kept, Storable), kept
    assembler = renderer.assembler()
    for event in events_of(renderer.stream(kept.answer, kept.answer_id, "fresh", rendition)):
        assembler.feed(event)
    again = assembler.result()
    assert isinstance(again, Storable), again
    assert (again.answer_id, again.prompt_tokens, again.completion_tokens) == ("fresh", kept.prompt_tokens, kept.completion_tokens)
    assert again.reach == kept.reach
    return {**json.loads(again.answer), "id": kept.answer_id}


@pytest.mark.parametrize("rendition", RENDITIONS)
@given(answer=chat_answers())
@QUICK
def test_chat(rendition: Rendition, answer: dict[str, Any]) -> None:
    assert there_and_back(Endpoint.CHAT, answer, rendition) == answer


@pytest.mark.parametrize("rendition", RENDITIONS)
@given(answer=completion_answers())
@QUICK
def test_completions(rendition: Rendition, answer: dict[str, Any]) -> None:
    assert there_and_back(Endpoint.COMPLETIONS, answer, rendition) == answer


@given(answer=message_answers())
@QUICK
def test_messages(answer: dict[str, Any]) -> None:
    assert there_and_back(Endpoint.MESSAGES, answer, Rendition(stream=True)) == answer


@given(answer=response_answers)
@QUICK
def test_responses(answer: dict[str, Any]) -> None:
    assert there_and_back(Endpoint.RESPONSES, answer, Rendition(stream=True)) == answer


@given(answer=response_answers)
@QUICK
def test_events_of_responses_are_numbered_from_zero(answer: dict[str, Any]) -> None:
    stream = renderer_for(Endpoint.RESPONSES, KEEP_ALL).stream(json.dumps(answer).encode(), "resp_old", "fresh", Rendition(stream=True))
    numbers = [json.loads(event.split(b"\ndata: ")[1])["sequence_number"] for event in events_of(stream)]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.COMPLETIONS])
@given(chat=chat_answers(), completion=completion_answers())
@QUICK
def test_a_replay_without_usage_is_a_live_view_of_the_replay_with_usage(
    endpoint: Endpoint, chat: dict[str, Any], completion: dict[str, Any]
) -> None:
    answer = chat if endpoint is Endpoint.CHAT else completion
    # With several choices a live view shows the fingerprint on the last finishing chunk, a replay on each.
    answer["choices"] = answer["choices"][:1]
    body = json.dumps(answer).encode()
    renderer = renderer_for(endpoint, KEEP_ALL)
    wanted = Rendition(stream=True)
    view = renderer.live(wanted, "fresh")
    with_usage = renderer.stream(body, answer["id"], answer["id"], Rendition(stream=True, include_usage=True))
    seen = b"".join(view.feed(event) for event in events_of(with_usage)) + view.finish()
    assert seen == renderer.stream(body, answer["id"], "fresh", wanted)
