"""Requests that are wrong in themselves: the client gets exactly what upstream says, and nothing of it is stored."""

import asyncio
import gzip

import orjson
import pytest

from inference_cache_toolkit.standin.wire import answer_bytes, scripted

CHAT = "/v1/chat/completions"
MESSAGE = b'{"role":"user","content":"hello"}'
PATHS = [CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/rerank", "/score", "/classify", "/tokenize"]


@pytest.fixture
async def exact(start_sidecar):
    return await start_sidecar({"semantic": {"mode": "Off"}})


def chat(*fields: bytes) -> bytes:
    return b"{" + b",".join((b'"model":"tiny"', *fields)) + b"}"


BROKEN = [
    pytest.param(b"", id="empty"),
    pytest.param(b" ", id="blank"),
    pytest.param(b"{", id="cut-off"),
    pytest.param(b"hello", id="no-json"),
    pytest.param(b"\x00\x01\x02\xff", id="binary"),
    pytest.param(b"\xff\xfe{\x00}\x00", id="utf-16"),
    pytest.param(b"\xef\xbb\xbf{}", id="byte-order-mark"),
    pytest.param(b"[]", id="array"),
    pytest.param(b"null", id="null"),
    pytest.param(b'"text"', id="string"),
    pytest.param(b"17", id="number"),
    pytest.param(b"{}", id="no-fields"),
    pytest.param(b"{}{}", id="two-documents"),
    pytest.param(b"{'model':'tiny'}", id="single-quotes"),
    pytest.param(chat(b'"messages":[],'), id="trailing-comma"),
    pytest.param(b"[" * 100_000 + b"]" * 100_000, id="nested-100000-deep"),
    pytest.param(b'{"a":' * 1100 + b"1" + b"}" * 1100, id="nested-objects-1100-deep"),
    pytest.param(chat(b'"messages":' + b"[" * 900 + b"]" * 900), id="messages-nested-900-deep"),
    pytest.param(chat(b'"messages":[{"role":"user","content":"a\xffb"}]'), id="invalid-utf-8"),
    pytest.param(chat(b'"messages":[{"role":"user","content":"\xed\xa0\x80"}]'), id="surrogate-in-utf-8"),
    pytest.param(chat(b'"messages":[{"role":"user","content":"a\\ud800b"}]'), id="lone-surrogate"),
    pytest.param(chat(b'"messages":[{"role":"user","content":"a\nb"}]'), id="raw-line-feed-in-a-string"),
    pytest.param(chat(b'"messages":[' + MESSAGE + b'],"temperature":NaN'), id="nan"),
    pytest.param(chat(b'"messages":[' + MESSAGE + b'],"temperature":-Infinity'), id="infinity"),
    pytest.param(chat(b'"messages":[' + MESSAGE + b'],"temperature":1e999'), id="number-too-large-for-a-float"),
    pytest.param(chat(b'"messages":[' + MESSAGE + b'],"seed":' + b"9" * 400), id="integer-of-400-digits"),
    pytest.param(chat(b'"messages":[' + MESSAGE + b'],"seed":18446744073709551616'), id="integer-over-64-bits"),
    pytest.param(chat(b'"messages":"hello"'), id="messages-a-string"),
    pytest.param(chat(b'"messages":null'), id="messages-null"),
    pytest.param(chat(b'"messages":[]'), id="no-messages"),
    pytest.param(chat(b'"messages":[1,null,"x"]'), id="messages-no-objects"),
    pytest.param(chat(b'"messages":[{"role":7,"content":"hello"}]'), id="role-a-number"),
    pytest.param(chat(b'"messages":[{"role":"user","content":7}]'), id="content-a-number"),
    pytest.param(chat(b'"messages":[{"role":"user"}]'), id="no-content"),
    pytest.param(chat(b'"messages":[{"role":"user","content":[{"type":"text"}]}]'), id="text-part-without-text"),
    pytest.param(chat(b'"messages":[' + MESSAGE + b'],"n":"three"'), id="n-a-word"),
    pytest.param(chat(b'"messages":[' + MESSAGE + b'],"stream":"yes"'), id="stream-a-word"),
    pytest.param(chat(b'"messages":[' + MESSAGE + b'],"stream_options":[1]'), id="stream-options-an-array"),
    pytest.param(chat(b'"messages":[' + MESSAGE + b'],"tools":"all"'), id="tools-a-word"),
    pytest.param(b'{"model":["tiny"],"messages":[' + MESSAGE + b"]}", id="model-an-array"),
    pytest.param(b'{"model":"unknown","messages":[' + MESSAGE + b"]}", id="model-unknown"),
    pytest.param(chat(b'"messages":[' + MESSAGE + b'],"messages":[]'), id="messages-twice"),
    pytest.param(chat(b'"messages":[{"role":"user","role":"system","content":"hello"}]'), id="role-twice"),
    pytest.param(chat(b'"input":[[1,"a"],{}]'), id="input-mixed"),
    pytest.param(chat(b'"input":{"a":1}'), id="input-an-object"),
    pytest.param(chat(b'"prompt":[{"a":1}]'), id="prompt-an-array-of-objects"),
    pytest.param(chat(b'"query":1,"documents":"x"'), id="rerank-of-wrong-types"),
    pytest.param(chat(b'"text_1":[],"text_2":{}'), id="score-of-wrong-types"),
]


OWN = {"id", "created", "created_at"}
"""What differs from answer to answer."""


@pytest.mark.parametrize("body", BROKEN)
async def test_upstream_has_the_word_on_a_request_that_is_wrong(exact, standin, standin_url, body):
    headers = {"Content-Type": "application/json"}
    for path in PATHS:
        async with exact.session.post(standin_url + path, data=body, headers=headers) as response:
            direct = (response.status, response.headers.get("Content-Type"), await response.read())
        before = standin.calls[path]
        for _ in range(2):
            answer = await exact.post(path, body, headers)
            if direct[0] == 200:
                assert without_ids(answer.body) == without_ids(direct[2]), path
                continue
            assert (answer.status, answer.headers.get("Content-Type"), answer.body) == direct, path
            assert answer.kind in ("bypass", "miss"), path
            assert "stored" not in answer.cache_status
        assert direct[0] == 200 or standin.calls[path] == before + 2, path


def without_ids(body):
    """Of a stream, only that it is one."""
    return b"data:" if body.startswith(b"data:") else [value for name, value in orjson.loads(body).items() if name not in OWN]


async def test_of_a_field_given_twice_the_last_counts_as_it_does_for_the_model_server(exact, standin):
    message = b'"messages":[{"role":"user","content":"hello"}]'
    await exact.post(CHAT, chat(message, b'"top_k":1', b'"top_k":2'))
    assert (await exact.post(CHAT, chat(message, b'"top_k":2'))).kind == "exact"
    assert (await exact.post(CHAT, chat(message, b'"top_k":1'))).kind == "miss"
    assert standin.inferences == 2


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
async def test_what_is_not_declared_as_json_is_not_read_as_such(exact, standin, content_type):
    body = chat(b'"messages":[' + MESSAGE + b"]")
    for _ in range(2):
        answer = await exact.post(CHAT, body, {"Content-Type": content_type})
        assert answer.kind == "bypass"
    assert standin.inferences == 2


async def test_a_compressed_body_passes_as_it_is(start_sidecar):
    packed = gzip.compress(chat(b'"messages":[' + MESSAGE + b"]"))

    async def script(exchange):
        await exchange.send(answer_bytes(b'{"id":"x"}'))

    async with scripted(script) as upstream:
        sidecar = await start_sidecar({"semantic": {"mode": "Off"}}, upstream.url)
        for _ in range(2):
            answer = await sidecar.post(CHAT, packed, {"Content-Encoding": "gzip"})
            assert answer.kind == "bypass"
        assert [seen.body for seen in upstream.seen] == [packed, packed]
        assert upstream.seen[0].get("Content-Encoding") == "gzip"


async def test_bad_requests_at_once_do_not_disturb_good_ones(exact):
    bad = [exact.post(CHAT, body) for body in (b"{", b"[]", b"", b"[" * 100_000)]
    good = [exact.chat(f"question {number}") for number in range(10)]
    answers = await asyncio.gather(*bad, *good)
    assert [answer.status for answer in answers] == [400] * 4 + [200] * 10
