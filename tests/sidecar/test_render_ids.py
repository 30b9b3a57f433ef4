import json
import re

import pytest

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.renderers import renderer_for

CHAT = renderer_for(Endpoint.CHAT, AnswerPolicy())


@pytest.mark.parametrize(
    ("endpoint", "pattern", "with_request_id"),
    [
        pytest.param(Endpoint.CHAT, r"chatcmpl-[0-9a-f]{16}", "chatcmpl-mine", id="chat"),
        pytest.param(Endpoint.COMPLETIONS, r"cmpl-[0-9a-f]{16}", "cmpl-mine", id="completions"),
        pytest.param(Endpoint.MESSAGES, r"chatcmpl-[0-9a-f]{16}", "chatcmpl-mine", id="messages"),
        pytest.param(Endpoint.EMBEDDINGS, r"embd-[0-9a-f]{16}", "embd-mine", id="embeddings"),
        pytest.param(Endpoint.SCORE, r"score-[0-9a-f]{16}", "score-mine", id="score"),
        pytest.param(Endpoint.RERANK, r"score-[0-9a-f]{16}", "score-mine", id="rerank"),
        pytest.param(Endpoint.CLASSIFY, r"classify-[0-9a-f]{16}", "classify-mine", id="classify"),
    ],
)
def test_ids_are_made_as_vllm_makes_them(endpoint: Endpoint, pattern: str, with_request_id: str) -> None:
    renderer = renderer_for(endpoint, AnswerPolicy())
    assert re.fullmatch(pattern, renderer.new_id(None))
    assert renderer.new_id(None) != renderer.new_id(None)
    assert renderer.new_id("mine") == with_request_id


def test_responses_take_no_request_id() -> None:
    assert re.fullmatch(r"resp_[0-9a-f]{16}", renderer_for(Endpoint.RESPONSES, AnswerPolicy()).new_id("mine"))


@pytest.mark.parametrize(
    ("answer", "old_id"),
    [
        pytest.param('{"id":"old","a":"\\"id\\":\\"old\\"","b":{"id":"old"}}', "old", id="first"),
        pytest.param('{ "id" : "old", "a": 1.0}', "old", id="spaced"),
        pytest.param('{"a":"\\"id\\":\\"old\\"","id":"old"}', "old", id="behind-a-text-that-shows-it"),
        pytest.param('{"id":"a\\"b/\\\\é","a":1}', 'a"b/\\é', id="escaped"),
        pytest.param('{"id":"caf\\u00e9","a":1}', "café", id="escaped-otherwise"),
    ],
)
def test_only_the_id_is_replaced(answer: str, old_id: str) -> None:
    before = json.loads(answer)
    assert before["id"] == old_id
    assert json.loads(CHAT.plain(answer.encode(), old_id, 'new"')) == {**before, "id": 'new"'}


def test_an_answer_without_id_stays_as_it_is() -> None:
    assert renderer_for(Endpoint.TOKENIZE, AnswerPolicy()).plain(b'{"count":1}', "", "fresh") == b'{"count":1}'


def test_a_followers_id_is_put_into_spaced_events_too() -> None:
    view = CHAT.live(Rendition(stream=True, include_usage=True), "mine")
    seen = [
        view.feed(event)
        for event in (b": ping\n\n", b'data: {"id": "old", "choices": [{"delta": {"content": "\\"id\\": \\"old\\""}}]}\n\n')
    ]
    assert seen == [b": ping\n\n", b'data: {"id":"mine", "choices": [{"delta": {"content": "\\"id\\": \\"old\\""}}]}\n\n']
