"""What the parser singles out, what it refuses, and that it never raises."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from inference_cache_contract.canonical import Normalize
from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.query.model import Bypass, BypassReason, Query, Rendition
from inference_cache_sidecar.query.parse import parse
from inference_cache_sidecar.query.rules import QueryRules

HEADERS = {"content-type": "application/json"}
QUESTION = "How do I reset my password?"


def ask(endpoint: Endpoint, request: object, headers: dict[str, str] = HEADERS, **rules: Any) -> Query | Bypass:
    return parse(endpoint, request if isinstance(request, bytes) else json.dumps(request).encode(), headers, QueryRules(**rules))


def query(endpoint: Endpoint, request: object, **rules: Any) -> Query:
    found = ask(endpoint, request, **rules)
    assert isinstance(found, Query)
    return found


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": list(messages), **fields}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_equal_last_turns_under_different_histories_share_nothing() -> None:
    histories = [[], [user("Hi")], [user("Hi"), {"role": "assistant", "content": "Hello"}], [{"role": "system", "content": "Be kind."}]]
    queries = [query(Endpoint.CHAT, chat(*history, user(QUESTION))) for history in histories]
    assert len({found.determinants for found in queries}) == len(histories)
    assert {found.canonical for found in queries} == {queries[0].canonical}


@pytest.mark.parametrize(
    ("endpoint", "request_with"),
    [
        pytest.param(Endpoint.CHAT, lambda text: chat(user("Hi"), user(text)), id="chat"),
        pytest.param(Endpoint.CHAT, lambda text: chat(user([{"type": "text", "text": text}])), id="chat-parts"),
        pytest.param(Endpoint.RESPONSES, lambda text: {"model": "tiny", "input": text}, id="responses-text"),
        pytest.param(
            Endpoint.RESPONSES,
            lambda text: {"model": "tiny", "input": [user([{"type": "input_text", "text": text}])]},
            id="responses-items",
        ),
        pytest.param(Endpoint.MESSAGES, lambda text: chat(user(text), max_tokens=5), id="messages"),
        pytest.param(Endpoint.MESSAGES, lambda text: chat(user([{"type": "text", "text": text}]), max_tokens=5), id="messages-blocks"),
    ],
)
def test_only_the_last_user_text_may_differ_inside_a_scope(endpoint: Endpoint, request_with: Any) -> None:
    one, other = query(endpoint, request_with(QUESTION)), query(endpoint, request_with("Forgot my password!"))
    assert one.determinants == other.determinants
    assert one.canonical != other.canonical
    assert (one.prompt, other.prompt) == (QUESTION, "Forgot my password!")
    assert one.semantic
    assert other.semantic


@pytest.mark.parametrize(
    "request_body",
    [
        pytest.param(chat(user(QUESTION), {"role": "assistant", "content": "Well,"}), id="prefill"),
        pytest.param(chat(user(QUESTION), {"role": "tool", "tool_call_id": "1", "content": "x"}), id="tool-result"),
        pytest.param(chat(user(QUESTION), continue_final_message=True), id="continued"),
        pytest.param(chat(user(QUESTION), add_generation_prompt=False), id="no-generation-prompt"),
        pytest.param(chat(user(QUESTION), echo=True), id="echo"),
        pytest.param(chat(user(QUESTION), return_prompt_text=True), id="prompt-in-the-answer"),
        pytest.param(chat(user(QUESTION), prompt_logprobs=0), id="prompt-logprobs"),
        pytest.param(chat(user("")), id="empty"),
        pytest.param(
            chat(user([{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": "https://x/y"}}])), id="link"
        ),
        pytest.param(
            chat(user([{"type": "image_url", "image_url": {"url": "https://x/y"}}]), user(QUESTION)), id="link-in-an-earlier-turn"
        ),
        pytest.param(chat(user([{"type": "text", "text": QUESTION}, {"type": "new", "x": 1}])), id="unknown-part"),
        pytest.param(chat(user([{"type": "text", "text": QUESTION, "uuid": "1"}])), id="named-part"),
        pytest.param(chat(user([{"type": "image_url", "uuid": "1"}, {"type": "text", "text": QUESTION}])), id="image-by-name"),
        pytest.param(chat(user([QUESTION])), id="bare-text-in-a-list"),
    ],
)
def test_what_no_text_alone_may_vary_is_matched_as_a_whole(request_body: dict[str, Any]) -> None:
    found = query(Endpoint.CHAT, request_body)
    assert not found.semantic
    assert found.prompt == ""
    assert json.loads(found.canonical)["messages"] == request_body["messages"]


def test_an_inline_image_is_scope_and_the_question_about_it_may_be_similar() -> None:
    def about(image: str, text: str) -> Query:
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
        return query(Endpoint.CHAT, chat(user([part, {"type": "text", "text": text}])))

    assert about("AAAA", "What is it?").semantic
    assert about("AAAA", "What is it?").determinants == about("AAAA", "What is that?").determinants
    assert about("AAAA", "What is it?").determinants != about("BBBB", "What is it?").determinants


def test_a_tool_result_of_messages_is_matched_as_a_whole() -> None:
    blocks = [{"type": "tool_result", "tool_use_id": "1", "content": "42"}, {"type": "text", "text": QUESTION}]
    assert not query(Endpoint.MESSAGES, chat(user(blocks), max_tokens=5)).semantic


def test_the_order_of_a_tool_calls_arguments_counts_and_that_of_its_fields_does_not() -> None:
    def after(call: dict[str, Any]) -> bytes:
        return query(
            Endpoint.MESSAGES, chat(user("Hi"), {"role": "assistant", "content": [call]}, user(QUESTION), max_tokens=5)
        ).determinants

    call = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1, "b": 2}}
    assert after(call) == after(dict(reversed(call.items())))
    assert after(call) != after({**call, "input": {"b": 2, "a": 1}})


def test_key_order_and_white_space_do_not_show() -> None:
    compact = b'{"model":"tiny","temperature":0,"messages":[{"role":"user","content":"Hi"}]}'
    spaced = b'{ "messages": [\n{"content":\t"Hi", "role": "user"} ],\r\n"temperature": 0, "model": "t\\u0069ny" }'
    assert ask(Endpoint.CHAT, compact) == ask(Endpoint.CHAT, spaced)


def test_of_duplicate_keys_the_last_counts_as_it_does_upstream() -> None:
    twice = b'{"model":"tiny","messages":[{"role":"user","content":"No"}],"messages":[{"role":"user","content":"Hi"}],"top_k":1,"top_k":2}'
    assert ask(Endpoint.CHAT, twice) == ask(Endpoint.CHAT, json.loads(twice))
    assert ask(Endpoint.CHAT, json.loads(twice)) != ask(Endpoint.CHAT, {**json.loads(twice), "top_k": 1})


def test_integers_that_the_fast_reader_cannot_hold_are_not_confused() -> None:
    for number in (2**64, 2**64 + 1, -(2**63) - 1, 10**30):
        assert ask(Endpoint.CHAT, chat(user("Hi"), vllm_xargs={"a": number})) == Bypass(BypassReason.MALFORMED)
    for number in (2**64 - 1, -(2**63), 10**18):
        assert query(Endpoint.CHAT, chat(user("Hi"), vllm_xargs={"a": number})).semantic
    assert query(Endpoint.CHAT, chat(user("My card is 12345678901234567890123"))).semantic


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="no-input"),
        pytest.param(b'{"messages":[{"role":"user","content":"\xff"}]}', id="invalid-utf-8"),
        pytest.param(b'{"messages":[{"role":"user","content":"\\ud800"}]}', id="lone-surrogate"),
        pytest.param(b'{"messages":[],"top_p":NaN}', id="nan"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte-order-mark"),
        pytest.param('{"messages":[]}'.encode("utf-16"), id="utf-16"),
        pytest.param(b'{"messages":' + b"[" * 300 + b"]" * 300 + b"}", id="deep"),
        pytest.param(b'{"messages":' + b"[" * 100_000, id="deeper"),
        pytest.param(b'{"messages":' + b'[{"role":"user","content":' * 400 + b"1" + b"}]" * 400 + b"}", id="turns-in-turns"),
        pytest.param(
            b'{"messages":[{"role":"user","content":' + b'[{"type":"tool_result","content":' * 400 + b"1" + b"}]" * 400 + b"}]}",
            id="results",
        ),
    ],
)
def test_a_body_that_is_no_request_passes_through(body: bytes) -> None:
    assert ask(Endpoint.CHAT, body) == Bypass(BypassReason.MALFORMED)
    assert isinstance(ask(Endpoint.MESSAGES, body), Bypass)


@pytest.mark.parametrize(
    ("rule", "fields", "cached"),
    [
        pytest.param("Deterministic", {"temperature": 0}, True, id="deterministic-zero"),
        pytest.param("Deterministic", {"temperature": 0.0}, True, id="deterministic-zero-float"),
        pytest.param("Deterministic", {"seed": 0, "temperature": 1}, True, id="deterministic-seed-zero"),
        pytest.param("Deterministic", {"use_beam_search": True}, True, id="deterministic-beams"),
        pytest.param("Deterministic", {}, False, id="deterministic-unstated"),
        pytest.param("Deterministic", {"seed": None}, False, id="deterministic-seed-null"),
        pytest.param("Deterministic", {"temperature": False}, False, id="deterministic-false-is-no-zero"),
        pytest.param("Deterministic", {"temperature": "0"}, False, id="deterministic-text"),
        pytest.param("Unstated", {}, True, id="unstated"),
        pytest.param("Unstated", {"temperature": None}, True, id="unstated-null"),
        pytest.param("Unstated", {"temperature": 0}, True, id="unstated-zero"),
        pytest.param("Unstated", {"temperature": 0.1}, False, id="unstated-warm"),
        pytest.param("Unstated", {"temperature": 0.1, "seed": 3}, True, id="unstated-warm-with-seed"),
        pytest.param("All", {"temperature": 1.5}, True, id="all"),
    ],
)
def test_sampled_answers_are_repeated_only_where_the_spec_allows(rule: str, fields: dict[str, Any], cached: bool) -> None:
    found = ask(Endpoint.CHAT, chat(user(QUESTION), **fields), sampling=rule)
    assert isinstance(found, Query) if cached else found == Bypass(BypassReason.SAMPLING)


def test_sampling_does_not_matter_where_nothing_is_generated() -> None:
    assert query(Endpoint.EMBEDDINGS, {"model": "emb", "input": "Hi", "temperature": 1}, sampling="Deterministic").canonical


@pytest.mark.parametrize(
    ("fields", "rendition"),
    [
        pytest.param({}, Rendition(), id="plain"),
        pytest.param({"stream": True}, Rendition(stream=True), id="stream"),
        pytest.param({"stream": True, "stream_options": None}, Rendition(stream=True), id="stream-null-options"),
        pytest.param({"stream": True, "stream_options": {"include_usage": True}}, Rendition(True, True), id="usage"),
        pytest.param({"stream": True, "stream_options": {"include_usage": None}}, Rendition(True), id="usage-null"),
        pytest.param({"stream": True, "stream_options": {"continuous_usage_stats": True}}, Rendition(True, False, True), id="continuous"),
    ],
)
@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.RESPONSES, Endpoint.COMPLETIONS])
def test_the_rendition_is_read_and_no_part_of_the_scope(endpoint: Endpoint, fields: dict[str, Any], rendition: Rendition) -> None:
    asked = {"model": "tiny", "messages": [user(QUESTION)], "input": QUESTION, "prompt": QUESTION}
    asked = {**asked, **fields} if endpoint is not Endpoint.RESPONSES else {"model": "tiny", "input": QUESTION, **fields}
    plain = {name: value for name, value in asked.items() if name not in fields}
    assert query(endpoint, asked).rendition == rendition
    assert query(endpoint, asked).determinants == query(endpoint, plain).determinants


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": 1},
        {"stream": "true"},
        {"stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": {"include_usage": 1}},
    ],
)
def test_a_rendition_that_upstream_reads_in_its_own_way_passes_through(fields: dict[str, Any]) -> None:
    assert ask(Endpoint.CHAT, chat(user(QUESTION), **fields)) == Bypass(BypassReason.MALFORMED)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param({}, BypassReason.CONTENT_TYPE, id="no-type"),
        pytest.param({"content-type": "text/json"}, BypassReason.CONTENT_TYPE, id="other-type"),
        pytest.param({"content-type": "application/json", "content-encoding": "gzip"}, BypassReason.CONTENT_ENCODING, id="gzip"),
        pytest.param({"content-type": "Application/JSON;charset=utf-8", "content-encoding": "identity"}, None, id="spelt-otherwise"),
    ],
)
def test_only_plain_json_is_read(headers: dict[str, str], reason: BypassReason | None) -> None:
    found = ask(Endpoint.CHAT, chat(user(QUESTION)), headers)
    assert isinstance(found, Query) if reason is None else found == Bypass(reason)


def test_headers_of_any_case_and_odd_bytes_are_read() -> None:
    request = json.dumps(chat(user(QUESTION))).encode()
    plain = parse(Endpoint.CHAT, request, CIMultiDict({"Content-Type": "application/json"}), QueryRules())
    from_elsewhere = parse(Endpoint.CHAT, request, CIMultiDict({"Content-Type": "application/json", "Origin": "\udcff"}), QueryRules())
    assert isinstance(plain, Query)
    assert isinstance(from_elsewhere, Query)
    assert plain.determinants != from_elsewhere.determinants


def test_cookies_count_only_beside_an_origin() -> None:
    def determinants(**headers: str) -> bytes:
        found = ask(Endpoint.CHAT, chat(user(QUESTION)), {**HEADERS, **headers})
        assert isinstance(found, Query)
        return found.determinants

    assert determinants(cookie="a=1") == determinants()
    assert (
        determinants(origin="https://a", cookie="a=1") == determinants(origin="https://a", cookie="b=2") != determinants(origin="https://a")
    )


def test_completions_are_exact_unless_the_spec_adds_them() -> None:
    request = {"model": "tiny", "prompt": QUESTION}
    assert not query(Endpoint.COMPLETIONS, request).semantic
    added = query(Endpoint.COMPLETIONS, request, semantic_endpoints=frozenset({Endpoint.COMPLETIONS}))
    assert (added.semantic, added.prompt, added.canonical) == (True, QUESTION, QUESTION.encode())
    for fields in ({"echo": True}, {"suffix": "x"}, {"prompt": [QUESTION]}, {"prompt": [1, 2]}, {"prompt_logprobs": 0}):
        assert not query(Endpoint.COMPLETIONS, {**request, **fields}, semantic_endpoints=frozenset({Endpoint.COMPLETIONS})).semantic


def test_an_endpoint_taken_from_the_semantic_ones_still_matches_normalised() -> None:
    exact = [query(Endpoint.CHAT, chat(user(text)), semantic_endpoints=frozenset()) for text in ("Reset it now", "reset it  now.")]
    assert not exact[0].semantic
    assert exact[0].canonical == exact[1].canonical
    assert exact[1].prompt == "reset it  now."


def test_normalisation_can_be_switched_off() -> None:
    rules = Normalize(whitespace=False, case=False, punctuation=False)
    assert query(Endpoint.CHAT, chat(user("Reset  It!")), normalize=rules).canonical == b"Reset  It!"


def test_a_text_and_its_quoted_spelling_are_two_prompts() -> None:
    prompts = ["Hi", '"Hi"', ["Hi"], [["Hi"]], [1], [[1]], "1", None]
    found = [query(Endpoint.COMPLETIONS, {"model": "tiny", "prompt": prompt}).canonical for prompt in prompts]
    assert len(set(found)) == len(prompts)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "text", "tool_result", "data:", "function"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "uuid", "url", "image_url", "source", "input", "output"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
field_names = st.sampled_from(
    [
        "messages",
        "input",
        "prompt",
        "model",
        "stream",
        "stream_options",
        "temperature",
        "seed",
        "tools",
        "system",
        "documents",
        "query",
        "top_n",
        "echo",
        "text_1",
        "text_2",
        "background",
        "store",
        "metadata",
        "encoding_format",
        "cache_control",
        "prompt_logprobs",
        "kv_transfer_params",
    ]
)


@settings(max_examples=100)
@given(
    st.sampled_from(Endpoint), st.dictionaries(field_names, json_values, max_size=6), st.sampled_from(["Deterministic", "Unstated", "All"])
)
def test_any_json_is_parsed_or_passed_through(endpoint: Endpoint, request_body: dict[str, Any], rule: str) -> None:
    body = json.dumps(request_body).encode()
    found = ask(endpoint, body, sampling=rule, semantic_endpoints=frozenset(Endpoint))
    assert found == ask(
        endpoint, json.dumps(dict(reversed(request_body.items())), indent=1).encode(), sampling=rule, semantic_endpoints=frozenset(Endpoint)
    )


@settings(max_examples=100)
@given(st.sampled_from(Endpoint), st.binary(max_size=60))
def test_any_bytes_are_parsed_or_passed_through(endpoint: Endpoint, body: bytes) -> None:
    assert isinstance(ask(endpoint, body), Query | Bypass)
