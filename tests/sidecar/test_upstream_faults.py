"""An upstream that fails in every way it can: the client sees what upstream did or a clear error, and nothing wrong is kept."""

import asyncio
import itertools

import aiohttp
import orjson
import pytest

from inference_cache_toolkit.standin.faults import Fault
from inference_cache_toolkit.standin.wire import answer_bytes, connected, request_bytes, scripted

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"


def chat_body(prompt="hello", **fields):
    return orjson.dumps({"model": "tiny", "messages": [{"role": "user", "content": prompt}], **fields})


@pytest.fixture
async def exact(start_sidecar):
    return await start_sidecar({"semantic": {"mode": "Off"}})


@pytest.fixture
async def before(start_sidecar):
    """`await before(upstream)`: a sidecar without a semantic tier in front of a scripted upstream."""

    async def start(upstream, **limits):
        return await start_sidecar({"semantic": {"mode": "Off"}, "limits": limits}, upstream.url)

    return start


async def raw_answer(url, body, path=CHAT):
    """Everything that comes over the wire, and whether the connection was cut."""
    async with connected(url) as client, asyncio.timeout(60):
        await client.send(request_bytes("POST", path, JSON + "\r\nConnection: close\r\nX-Request-Id: same", body))
        try:
            return await client.rest(), False
        except ConnectionResetError:
            return bytes(client.reader._buffer), True


def body_of(raw):
    """The body of a whole or broken answer, without its chunks' framing."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size or b"0", 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


OF_BOTH = [Fault.STATUS_429, Fault.STATUS_500, Fault.STATUS_503, Fault.GARBAGE_SSE, Fault.ERROR_OBJECT, Fault.EMPTY_CHOICES]
OF_STREAMS = [*OF_BOTH, Fault.ERROR_MID_STREAM, Fault.NO_DONE]


@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        *(pytest.param(fault, False, id=f"{fault.value}-plain") for fault in OF_BOTH),
        *(pytest.param(fault, True, id=f"{fault.value}-stream") for fault in OF_STREAMS),
    ],
)
async def test_a_faulty_answer_reaches_the_client_as_it_is_and_is_not_kept(exact, standin, standin_url, fault, stream):
    standin.fault = fault
    body = chat_body(stream=stream)
    direct, _ = await raw_answer(standin_url, body)
    for number in (2, 3):
        got = await exact.post(CHAT, body, {"X-Request-Id": "same"})
        assert (got.status, got.body) == (int(direct.split(b" ")[1]), body_of(direct))
        assert got.headers.get("Retry-After") == ("1" if fault is Fault.STATUS_429 else None)
        assert got.kind == "miss"
        assert "stored" not in got.cache_status
        assert standin.inferences == number
    standin.fault = None
    assert (await exact.post(CHAT, body)).kind == "miss"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("path", [CHAT, "/v1/chat/completions?uncached"], ids=["cacheable", "pass-through"])
async def test_an_answer_that_is_cut_off_is_cut_off_for_the_client_too(exact, standin, path, stream):
    """Never a clean end: a client must not take half an answer for a whole one."""
    standin.fault = Fault.RESET_MID_STREAM
    body = chat_body(stream=stream)
    for _ in range(2):
        before = standin.calls[CHAT]
        assert await falls_short(exact, path, body)
        assert standin.calls[CHAT] > before
        await confirmed(exact)
    standin.fault = None
    assert (await exact.post(CHAT, body)).kind == "miss"


async def falls_short(sidecar, path, body):
    """Whether the client can see that it got no whole answer: the connection breaks, or an error says so."""
    try:
        answer = await sidecar.post(path, body)
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
        return True
    return answer.status == 502


async def confirmed(sidecar):
    """Upstream has been asked again who it is, which a failure makes necessary."""
    async with asyncio.timeout(60):
        while not sidecar.running.parts.identity.confirmed:
            await asyncio.sleep(0.01)


async def test_the_part_of_a_stream_that_came_before_the_cut_is_passed_on(exact, standin, standin_url):
    standin.fault = Fault.RESET_MID_STREAM
    body = chat_body(stream=True)
    direct, _ = await raw_answer(standin_url, body)
    through, _ = await raw_answer(exact.url, body)
    assert b'"content":' in body_of(through)
    assert body_of(direct).startswith(body_of(through))
    assert not through.endswith(b"0\r\n\r\n"), "a broken stream has no closing chunk"


async def test_followers_of_a_stream_that_is_cut_off_see_the_cut(exact, standin):
    standin.fault = Fault.RESET_MID_STREAM
    answers = await asyncio.gather(*(raw_answer(exact.url, chat_body(stream=True)) for _ in range(5)))
    assert not any(raw.endswith(b"0\r\n\r\n") for raw, _ in answers)


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/x"])
async def test_an_upstream_that_hangs_is_a_504_after_the_idle_timeout(before, path):
    async def script(exchange):
        await exchange.until_hung_up()

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream, upstreamIdleTimeout="200ms")
        body = orjson.dumps({"model": "tiny", "input": ["a", "b"]}) if "embed" in path else chat_body()
        for number in (1, 2):
            answer = await sidecar.post(path, body)
            error = answer.json()["error"]
            assert (answer.status, error["code"]) == (504, 504)
            assert "fwd-status=504" in answer.cache_status
            assert len(upstream.seen) == number
            await confirmed(sidecar)


@pytest.mark.parametrize("path", [CHAT, "/v1/x"])
async def test_a_stream_that_stops_is_cut_after_the_idle_timeout(before, path):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ndata: 1\n\r\n")
        await exchange.until_hung_up()

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream, upstreamIdleTimeout="200ms")
        raw, _ = await raw_answer(sidecar.url, chat_body(stream=True), path)
        assert b" 200 " in raw
        assert not raw.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/x"])
async def test_an_upstream_that_closes_without_an_answer_is_a_502(before, path, stream):
    async def script(exchange):
        exchange.cut()

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        body = orjson.dumps({"model": "tiny", "input": ["a", "b"]}) if "embed" in path else chat_body(stream=stream)
        answer = await sidecar.post(path, body)
        assert (answer.status, answer.json()["error"]["code"]) == (502, 502)
        assert "fwd-status=502" in answer.cache_status


async def test_a_kept_connection_that_was_closed_meanwhile_costs_a_cacheable_request_nothing(before):
    """vLLM closes idle connections; a request that meets a closing one is sent again, once."""
    connections = itertools.count(1)

    async def script(exchange):
        if next(connections) % 2:
            exchange.cut()
        else:
            await exchange.send(answer_bytes(b"{}"))

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        answer = await sidecar.post(CHAT, chat_body())
        assert answer.status == 200
        assert len(upstream.seen) == 2
        assert upstream.seen[0].body == upstream.seen[1].body


async def test_what_may_have_effects_is_never_sent_twice(before):
    async def script(exchange):
        exchange.cut()

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        answer = await sidecar.post("/v1/load_lora_adapter", b'{"lora_name":"a","lora_path":"b"}')
        assert answer.status == 502
        assert len(upstream.seen) == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_a_streamed_body_is_never_sent_again_without_its_bytes(before, method):
    """The kept connection breaks under a body that has been passed on already: nothing is left to send."""

    async def script(exchange):
        if exchange.request.body:
            exchange.cut()
        else:
            await exchange.send(answer_bytes(b"{}"))

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        async with connected(sidecar.url) as client:
            await client.send(request_bytes("GET", "/warm") + request_bytes(method, "/v1/x", "", b"body"))
            assert (await client.answer()).status == 200
            assert (await client.answer()).status == 502
        assert [seen.body for seen in upstream.seen] == [b"", b"body"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_safe_request_on_a_kept_connection_that_was_closed_meanwhile_is_sent_again(before, method):
    connections = itertools.count(1)

    async def script(exchange):
        if next(connections) == 1:
            exchange.cut()
        else:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        async with connected(sidecar.url) as client:
            await client.send(request_bytes(method, "/v1/x"))
            assert (await client.answer(bodyless=True)).status == 200
        assert len(upstream.seen) == 2


async def test_an_upstream_that_refuses_connections_is_a_502(start_sidecar):
    sidecar = await start_sidecar({"semantic": {"mode": "Off"}}, "http://127.0.0.1:1", ready=False)
    for path in (CHAT, "/v1/embeddings", "/v1/x"):
        answer = await sidecar.post(path, chat_body())
        assert (answer.status, answer.json()["error"]["type"]) == (502, "api_error")
        assert "fwd-status=502" in answer.cache_status
    assert (await sidecar.get("/health")).status == 502
    assert (await sidecar.metrics())["inference_cache_upstream_confirmed"] == 0


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", id="another-protocol"),
        pytest.param(b"\x00\x01\x02\x03\r\n\r\n", id="binary"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", id="status-no-number"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", id="length-no-number"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="two-framings"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", id="endless-header"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/x"])
async def test_an_answer_that_is_no_http_is_a_502(before, path, said):
    async def script(exchange):
        await exchange.send(said)
        exchange.writer.close()

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        body = orjson.dumps({"model": "tiny", "input": ["a", "b"]}) if "embed" in path else chat_body()
        answer = await sidecar.post(path, body)
        assert (answer.status, answer.json()["error"]["code"]) == (502, 502)


@pytest.mark.parametrize("path", [CHAT, "/v1/x"])
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"Content-Length: 100\r\n\r\nhalf", id="shorter-than-said"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", id="bad-chunk"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", id="no-last-chunk"),
    ],
)
async def test_a_body_that_breaks_off_is_no_whole_answer_for_the_client(before, path, said):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + said)
        exchange.writer.close()

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        assert await falls_short(sidecar, path, chat_body())
        assert sidecar.running.store.stats().entries == 0


async def test_more_than_the_announced_body_is_not_taken_for_the_next_answer(before):
    answers = itertools.count()

    async def script(exchange):
        await exchange.send(answer_bytes(b"[%d]" % next(answers)) + answer_bytes(b'"smuggled"'))

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        for _ in range(4):
            answer = await sidecar.get("/x")
            assert b"smuggled" not in answer.body


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'{"error":{"message":"x"}}', id="error-object"),
        pytest.param(b'{"object":"error","message":"x"}', id="old-error-object"),
        pytest.param(b'{"choices":[]}', id="no-choices"),
        pytest.param(b'{"choices":null}', id="choices-null"),
        pytest.param(b'{"choices":[{}]}', id="choice-without-anything"),
        pytest.param(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":null}]}', id="no-finish-reason"),
        pytest.param(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"abort"}]}', id="aborted"),
        pytest.param(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"error"}]}', id="failed"),
        pytest.param(b"\xff\xfe", id="binary"),
    ],
)
async def test_a_200_that_is_no_answer_passes_and_is_not_kept(before, body):
    async def script(exchange):
        await exchange.send(answer_bytes(body))

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        for number in (1, 2):
            answer = await sidecar.post(CHAT, chat_body())
            assert (answer.status, answer.body, answer.kind) == (200, body, "miss")
            assert len(upstream.seen) == number


async def test_a_herd_on_a_failing_upstream_gets_its_answer_and_the_next_one_asks_again(exact, standin):
    standin.fault = Fault.STATUS_503
    answers = await asyncio.gather(*(exact.chat("What is a herd?") for _ in range(20)))
    assert {answer.status for answer in answers} == {503}
    assert all("Cache-Status" in answer.headers for answer in answers)
    standin.fault = None
    assert (await exact.chat("What is a herd?")).status == 200
