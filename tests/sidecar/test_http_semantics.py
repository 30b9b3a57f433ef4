"""HTTP as it should be on both sides: nothing lost, nothing added, connections kept, clients that come and go."""

import asyncio
import gzip

import orjson
import pytest
from tests.sidecar.conftest import until_asked

from inference_cache_toolkit.standin.faults import Fault
from inference_cache_toolkit.standin.state import Pace
from inference_cache_toolkit.standin.wire import answer_bytes, connected, request_bytes, scripted

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chat_body(prompt="hello", **fields):
    return orjson.dumps({"model": "tiny", "messages": [{"role": "user", "content": prompt}], **fields})


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
async def exact(start_sidecar):
    return await start_sidecar({"semantic": {"mode": "Off"}})


@pytest.fixture
async def before(start_sidecar):
    """`await before(upstream)`: a sidecar without a semantic tier in front of a scripted upstream."""

    async def start(upstream, spec=None):
        return await start_sidecar({"semantic": {"mode": "Off"}, **(spec or {})}, upstream.url)

    return start


@pytest.mark.parametrize(
    "target",
    [
        "//two/slashes",
        "/a/../b/./c",
        "/percent/%2e%2E/%41%c3%a9/%2F",
        "/query?b=2&a=%41+c&&d",
        "/empty-query?",
        "/strange|{}^`;p=1,2",
        "/v1/chat/completions?x=1",
        "/v1/chat/completions/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "POST"])
async def test_every_method_and_target_passes_as_it_came(before, method, target):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nX-Said: yes\r\nContent-Length: 0\r\n\r\n")

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        async with connected(sidecar.url) as client:
            await client.send(request_bytes(method, target))
            answer = await client.answer(bodyless=method == "HEAD")
        assert (answer.status, answer.get("X-Said")) == (200, "yes")
        assert upstream.seen[0].start.decode() == f"{method} {target} HTTP/1.1"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_passes_with_every_method_as_it_is_framed(before, method, framing):
    async def script(exchange):
        await exchange.send(answer_bytes(exchange.request.body))

    sent = request_bytes(method, "/x", "", b"abc\0def")
    if framing == "chunks":
        sent = request_bytes(method, "/x", "Transfer-Encoding: chunked") + chunk(b"abc") + chunk(b"\0def") + b"0\r\n\r\n"
    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        async with connected(sidecar.url) as client:
            await client.send(sent)
            assert (await client.answer()).body == b"abc\0def"
        request = upstream.seen[0]
        assert (request.get("Content-Length"), request.get("Transfer-Encoding")) == (
            ("7", None) if framing == "length" else (None, "chunked")
        )


@pytest.mark.parametrize(("target", "path"), [("http://elsewhere:1/health?x", "/health?x"), ("HTTP://elsewhere?x=1", "/?x=1")])
async def test_an_absolute_target_goes_to_upstream_and_nowhere_else(exact, standin, target, path):
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(request_bytes("GET", target))
        await client.answer()
    assert standin.seen[-1].path == path


async def test_headers_of_one_hop_stay_there_and_all_others_pass_both_ways(before):
    async def script(exchange):
        head = "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-End: \u00e9"
        await exchange.send(answer_bytes(b"{}", headers=head + "\r\nServer: uvicorn"))

    sent = (
        "Connection: close, X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\nProxy-Authorization: no\r\nProxy-Connection: x\r\nX-Kept: 1\r\nX-Kept: 2"
    )
    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        async with connected(sidecar.url) as client:
            await client.send(request_bytes("GET", "/x", sent))
            answer = await client.answer()
            assert await client.rest() == b"", "the client asked to close"
    request = upstream.seen[0]
    for name in ("X-Mine", "TE", "Proxy-Authorization", "Proxy-Connection"):
        assert request.get(name) is None, name
    assert request.all("X-Kept") == ["1", "2"]
    assert request.get("Host") == "test"
    assert "close" not in (request.get("Connection") or "")
    assert {line.partition(b":")[0] for line in request.head.split(b"\r\n")[1:-2]} == {b"Host", b"X-Kept"}, "nothing is added"
    for name in ("X-Hop", "Keep-Alive"):
        assert answer.get(name) is None, name
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]
    assert answer.get("Server") == "uvicorn"
    assert answer.get("Content-Type") is None, "nothing is made up"
    assert answer.get("Date") is None


async def test_two_hundred_headers_pass(before):
    async def script(exchange):
        await exchange.send(answer_bytes(b"{}"))

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        async with connected(sidecar.url) as client:
            await client.send(request_bytes("GET", "/x", "\r\n".join(f"X-{i}: {i}" for i in range(200))))
            assert (await client.answer()).status == 200
        assert upstream.seen[0].get("X-199") == "199"


@pytest.mark.parametrize("path", [CHAT, "/v1/x"])
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body_pass_and_the_connection_goes_on(before, path, status):
    async def script(exchange):
        await exchange.send(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        async with connected(sidecar.url) as client:
            for _ in range(2):
                await client.send(request_bytes("POST", path, JSON, chat_body()))
                answer = await client.answer()
                assert (answer.start.decode(), answer.get("ETag")) == (f"HTTP/1.1 {status}", "x")
                assert answer.get("Content-Length") in (None, "0")
                assert answer.get("Transfer-Encoding") is None
        assert len(upstream.seen) == 2


@pytest.mark.parametrize("path", [CHAT, "/v1/x"])
async def test_interim_answers_of_upstream_do_not_disturb(before, path):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + answer_bytes(b"[1]"))

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        answer = await sidecar.post(path, chat_body())
        assert (answer.status, answer.body) == (200, b"[1]")


@pytest.mark.parametrize("path", [CHAT, "/v1/x"])
async def test_a_compressed_answer_passes_untouched_and_is_not_stored(before, path):
    packed = gzip.compress(b'{"choices":[]}')

    async def script(exchange):
        await exchange.send(answer_bytes(packed, headers=f"{JSON}\r\nContent-Encoding: gzip"))

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        for _ in range(2):
            answer = await sidecar.post(path, chat_body(), {"Accept-Encoding": "gzip"})
            assert (answer.body, answer.headers["Content-Encoding"]) == (packed, "gzip")
        assert len(upstream.seen) == 2
        passed_on = upstream.seen[0].get("Accept-Encoding")
        assert passed_on == ("identity" if path == CHAT else "gzip")


@pytest.mark.parametrize("path", [CHAT, "/v1/x"])
async def test_trailers_of_upstream_do_not_disturb(before, path):
    async def script(exchange):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        await exchange.send(head + chunk(b"[1,") + chunk(b"2]") + b"0\r\nX-Sum: 3\r\n\r\n")

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        for _ in range(2):
            assert (await sidecar.post(path, chat_body())).body == b"[1,2]"


async def test_trailers_of_a_client_do_not_disturb(exact):
    async with connected(exact.url) as client, asyncio.timeout(60):
        head = f"POST {CHAT} HTTP/1.1\r\nHost: test\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        for _ in range(2):
            await client.send(head + chunk(chat_body()) + b"0\r\nX-Sum: 3\r\n\r\n")
            assert (await client.answer()).status == 200


async def test_a_body_that_ends_with_the_connection_passes_whole(before):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nto the ")
        await exchange.send(b"end")
        exchange.writer.close()

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        assert (await sidecar.get("/x")).body == b"to the end"


async def test_pipelined_requests_are_answered_in_order(exact, standin):
    prompts = [f"question number {number}" for number in range(20)]
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(b"".join(request_bytes("POST", CHAT, JSON, chat_body(prompt)) for prompt in prompts))
        texts = [orjson.loads((await client.answer()).body)["choices"][0]["message"]["content"] for _ in prompts]
    asked = [orjson.loads(seen.body)["messages"][0]["content"] for seen in standin.seen if seen.path == CHAT]
    assert asked == prompts
    assert len(set(texts)) == len(prompts)
    again = [(await exact.chat(prompt)).text for prompt in prompts]
    assert again == texts


async def test_an_http_1_0_client_gets_its_answer_and_the_end_of_the_connection(exact):
    body = chat_body()
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(f"POST {CHAT} HTTP/1.0\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await client.answer()
        assert answer.status == 200
        assert orjson.loads(answer.body)["object"] == "chat.completion"
        assert await client.rest() == b""


@pytest.mark.parametrize("again", [False, True], ids=["miss", "hit"])
async def test_an_http_1_0_client_gets_a_stream_without_chunks(exact, again):
    body = chat_body(stream=True)
    if again:
        await exact.post(CHAT, body)
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(f"POST {CHAT} HTTP/1.0\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await client.answer()
    assert answer.get("Transfer-Encoding") is None
    assert answer.body.startswith(b"data: {")
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("target", [CHAT, "/v1/x"])
async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(exact, standin, target):
    body = chat_body()
    head = f"POST {target} HTTP/1.1\r\nHost: test\r\n{JSON}\r\nExpect: 100-Continue\r\nContent-Length: {len(body)}\r\n\r\n"
    async with connected(exact.url) as client, asyncio.timeout(60):
        for _ in range(2):
            await client.send(head.encode())
            assert (await client.answer()).status == 100
            await client.send(body)
            assert (await client.answer()).status == (200 if target == CHAT else 404)
    assert "Expect" not in standin.seen[-1].headers


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("path", [CHAT, "/v1/chat/completions?uncached"])
async def test_a_client_that_shuts_its_writing_side_still_gets_its_answer(exact, standin, path, stream):
    standin.pace = Pace(first_token=0.15, per_token=0.002)
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(request_bytes("POST", path, JSON, chat_body(stream=stream)))
        client.shut_writing()
        answer = await client.answer()
        while answer.status == 100:
            answer = await client.answer()
        assert await client.rest() == b""
    assert (answer.status, len(answer.body) > 100) == (200, True)
    assert not stream or answer.body.endswith(b"data: [DONE]\n\n")
    assert standin.aborted == 0


async def test_pipelined_requests_of_a_client_that_shut_its_writing_side_are_all_answered(exact, standin):
    standin.pace = Pace(first_token=0.05)
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(b"".join(request_bytes("POST", CHAT, JSON, chat_body(prompt)) for prompt in ("one", "two", "three")))
        client.shut_writing()
        answers = (await client.rest()).count(b"HTTP/1.1 200 OK")
    assert answers == 3


async def hung_up(standin):
    await standin.hung_up.wait()
    standin.hung_up.clear()


@pytest.mark.parametrize("leave", ["cut", "close"])
@pytest.mark.parametrize(
    ("path", "stream", "fault"),
    [
        pytest.param(CHAT, False, Fault.HANG, id="plain-miss"),
        pytest.param(CHAT, True, Fault.HANG, id="stream-before-its-head"),
        pytest.param(CHAT, True, Fault.HANG_MID_STREAM, id="running-stream"),
        pytest.param(CHAT, False, Fault.HANG_MID_STREAM, id="running-plain"),
        pytest.param("/v1/embeddings", False, Fault.HANG, id="list"),
        pytest.param("pass", False, Fault.HANG, id="pass-through"),
        pytest.param("pass", True, Fault.HANG_MID_STREAM, id="pass-through-stream"),
    ],
)
async def test_a_client_that_leaves_ends_the_work_upstream(exact, standin, path, stream, fault, leave):
    standin.fault = fault
    headers = JSON + ("\r\nCache-Control: no-store" if path == "pass" else "")
    body = orjson.dumps({"model": "tiny", "input": ["a", "b"]}) if "embed" in path else chat_body(stream=stream)
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(request_bytes("POST", CHAT if path == "pass" else path, headers, body))
        await until_asked(standin)
        if fault is Fault.HANG_MID_STREAM and stream:
            await client.reader.readuntil(b"\n\n")
        else:
            await asyncio.sleep(0.02)
        client.cut() if leave == "cut" else client.writer.close()
        await hung_up(standin)
    assert exact.running.parts.identity.confirmed, "a client that leaves is no reason to doubt upstream"


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(exact, standin):
    for target in (CHAT, "/v1/x"):
        async with connected(exact.url) as client:
            await client.send(f"POST {target} HTTP/1.1\r\nHost: test\r\n{JSON}\r\nContent-Length: 1000\r\n\r\n{{".encode())
            await asyncio.sleep(0.02)
    async with asyncio.timeout(60):
        while exact.running.parts.flights:
            await asyncio.sleep(0.01)
    assert [seen.path for seen in standin.seen if seen.method == "POST"] == []


async def test_a_refused_request_says_so_while_its_body_is_still_coming(before):
    """An early answer of upstream's, as vLLM gives to a wrong key, reaches the client."""

    async def script(exchange):
        await exchange.send(answer_bytes(b'{"error":"Unauthorized"}', "401 Unauthorized"))

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream, {"limits": {"bodyBytes": "1Ki"}})
        async with connected(sidecar.url) as client:
            await client.send(request_bytes("POST", CHAT, JSON, b"x" * 4096))
            assert (await client.answer()).status == 401
