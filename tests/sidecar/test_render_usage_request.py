import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.renderers import renderer_for

STREAM = Rendition(stream=True)
CHAT = renderer_for(Endpoint.CHAT, AnswerPolicy())


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        pytest.param('{"model":"m"}', '{"stream_options":{"include_usage":true},"model":"m"}', id="absent"),
        pytest.param(' {\n "seed": 1e2}', ' {"stream_options":{"include_usage":true},\n "seed": 1e2}', id="spaced"),
        pytest.param(
            '{"a":"\\"stream_options\\":1"}', '{"stream_options":{"include_usage":true},"a":"\\"stream_options\\":1"}', id="only-in-a-text"
        ),
        pytest.param('{"a":{"stream_options":1}}', '{"stream_options":{"include_usage":true},"a":{"stream_options":1}}', id="only-below"),
        pytest.param('{"stream_options":null,"n":1}', '{"stream_options":{"include_usage": true},"n":1}', id="null"),
        pytest.param(
            '{"seed":123456789012345678901234567890.50, "stream_options": {"include_usage":false}, "t":1.10}',
            '{"seed":123456789012345678901234567890.50, "stream_options": {"include_usage": true}, "t":1.10}',
            id="numbers-stay-as-written",
        ),
        pytest.param(
            '{"stream_options":{"x":1,"continuous_usage_stats":true}}',
            '{"stream_options":{"x": 1, "include_usage": true}}',
            id="running-usage-alone-means-nothing",
        ),
        pytest.param(
            '{"stream_options":{"include_usage":true},"stream_options":{}}',
            '{"stream_options":{"include_usage":true},"stream_options":{"include_usage": true}}',
            id="the-last-of-two-counts",
        ),
        pytest.param("{}", "{}", id="nothing-to-stream"),
        pytest.param('["stream_options"]', '["stream_options"]', id="no-object"),
        pytest.param('{"stream_options":', '{"stream_options":', id="broken"),
    ],
)
def test_a_stream_is_asked_with_usage(body: str, asked: str) -> None:
    assert CHAT.upstream_body(body.encode(), STREAM).decode() == asked


@pytest.mark.parametrize("rendition", [Rendition(), Rendition(stream=True, include_usage=True)], ids=["plain", "has-asked"])
def test_other_requests_go_as_they_came(rendition: Rendition) -> None:
    body = b'{"model":"m"}'
    assert CHAT.upstream_body(body, rendition) is body


@pytest.mark.parametrize("endpoint", [endpoint for endpoint in Endpoint if endpoint not in (Endpoint.CHAT, Endpoint.COMPLETIONS)])
def test_endpoints_that_always_say_usage_are_not_touched(endpoint: Endpoint) -> None:
    body = b'{"model":"m"}'
    assert renderer_for(endpoint, AnswerPolicy()).upstream_body(body, STREAM) is body


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


@given(request=st.dictionaries(st.sampled_from(["stream_options", "a", "b", "ü"]), values, min_size=1))
def test_nothing_else_changes(request: dict[str, object]) -> None:
    body = json.dumps(request, ensure_ascii=False).encode()
    asked = json.loads(CHAT.upstream_body(body, STREAM))
    assert asked.pop("stream_options")["include_usage"] is True
    request.pop("stream_options", None)
    assert asked == request


@pytest.mark.parametrize(
    ("wanted", "leader", "joins"),
    [
        pytest.param(Rendition(True), Rendition(True), True, id="both-without"),
        pytest.param(Rendition(True, True), Rendition(True), True, id="final-usage-is-always-there"),
        pytest.param(Rendition(True), Rendition(True, True, True), True, id="usage-can-be-left-out"),
        pytest.param(Rendition(True, True, True), Rendition(True, True), False, id="running-usage-cannot-be-added"),
        pytest.param(Rendition(True, True, True), Rendition(True, True, True), True, id="both-running"),
        pytest.param(Rendition(True, False, True), Rendition(True), True, id="running-usage-alone-means-nothing"),
        pytest.param(Rendition(False), Rendition(True), True, id="plain-follower"),
    ],
)
def test_who_can_join_a_running_stream(wanted: Rendition, leader: Rendition, joins: bool) -> None:
    assert CHAT.can_join(wanted, leader) is joins
