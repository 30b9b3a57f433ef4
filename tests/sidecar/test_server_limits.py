"""What the listening side refuses, how it says so, and that nothing of it reaches upstream."""

import asyncio

import orjson
import pytest

from inference_cache_toolkit.standin.wire import connected, request_bytes

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
BODY = b'{"model":"tiny","messages":[{"role":"user","content":"hello"}]}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def exact(start_sidecar):
    return await start_sidecar({"semantic": {"mode": "Off"}, "limits": {"headerBytes": "16Ki", "bodyBytes": "64Ki"}})


@pytest.fixture
async def hasty(start_sidecar):
    """Waits 2 s for the rest of a head, 3 s for more of a body."""
    limits = {"headerTimeout": "2s", "bodyIdleTimeout": "3s", "bodyBytes": "64Ki"}
    return await start_sidecar({"semantic": {"mode": "Off"}, "limits": limits})


def asked(standin):
    """Paths of requests that came from a client, not from the sidecar itself."""
    return [seen.path for seen in standin.seen if seen.path not in ("/version", "/metrics", "/v1/models")]


def is_openai_error(answer, status):
    error = orjson.loads(answer.body)["error"]
    return (
        answer.status == status
        and error["code"] == status
        and set(error) == {"message", "type", "param", "code"}
        and answer.get("Content-Type") == "application/json"
        and answer.get("Cache-Status") == 'inference-cache; detail="refused"'
    )


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(POST + b"Content-Length: 63\r\nContent-Length: 5\r\n\r\n" + BODY, id="two-lengths"),
        pytest.param(POST + b"Content-Length: 63\r\nContent-Length: 63\r\n\r\n" + BODY, id="two-equal-lengths"),
        pytest.param(POST + b"Content-Length: 63, 63\r\n\r\n" + BODY, id="list-of-lengths"),
        pytest.param(POST + b"Content-Length: +63\r\n\r\n" + BODY, id="signed-length"),
        pytest.param(POST + b"Content-Length: -1\r\n\r\n", id="negative-length"),
        pytest.param(POST + b"Content-Length: 0x3f\r\n\r\n" + BODY, id="hexadecimal-length"),
        pytest.param(POST + b"Content-Length : 63\r\n\r\n" + BODY, id="blank-before-the-colon"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", id="chunked-and-length"),
        pytest.param(POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="length-and-chunked"),
        pytest.param(POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="unknown-coding"),
        pytest.param(POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", id="chunked-not-last"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunked-twice"),
        pytest.param(CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n", id="chunked-in-http-1.0"),
        pytest.param(CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n", id="chunk-size-no-number"),
        pytest.param(CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", id="chunk-size-negative"),
        pytest.param(CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n", id="chunk-size-overflow"),
        pytest.param(CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n", id="chunk-longer-than-said"),
        pytest.param(CHUNKED + b"3\nabc\n0\n\n", id="chunk-with-bare-line-feeds"),
        pytest.param(GET + b"X-A: one\r\n two\r\n\r\n", id="folded-header"),
        pytest.param(b"GET /health HTTP/1.1\nHost: test\n\n", id="bare-line-feeds"),
        pytest.param(GET + b"X-A: one\nX-B: two\r\n\r\n", id="bare-line-feed-in-a-header"),
        pytest.param(GET + b"X-A: one\rX-B: two\r\n\r\n", id="bare-carriage-return"),
        pytest.param(GET + b"X-A: a\0b\r\n\r\n", id="nul-in-a-value"),
        pytest.param(GET + b"X\0A: ab\r\n\r\n", id="nul-in-a-name"),
        pytest.param(GET + b"Host: other\r\n\r\n", id="two-hosts"),
        pytest.param(b"GET /health HTTP/1.1\r\n\r\n", id="no-host"),
        pytest.param(b"GET /health HTTP/3.0\r\nHost: test\r\n\r\n", id="another-version"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http-2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", id="tls"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n", id="asterisk"),
        pytest.param(b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: test\r\n\r\n", id="connect"),
        pytest.param(b"GET @elsewhere/ HTTP/1.1\r\nHost: test\r\n\r\n", id="target-that-could-become-a-host"),
        pytest.param(b"GET file:///etc/passwd HTTP/1.1\r\nHost: test\r\n\r\n", id="another-scheme"),
    ],
)
async def test_what_two_servers_could_read_differently_is_refused_and_never_forwarded(exact, standin, sent):
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(sent)
        answer = await client.answer()
        assert is_openai_error(answer, 400)
        assert await client.rest() == b""
    assert asked(standin) == []


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"X-A: " + b"a" * 20_000 + b"\r\n", id="one-long-header"),
        pytest.param(b"".join(b"X-%d: %s\r\n" % (i, b"a" * 4000) for i in range(8)), id="many-that-are-long-together"),
        pytest.param(b"".join(b"X-%d: %s\r\n" % (i, b"a" * 15_000) for i in range(100)), id="a-megabyte"),
    ],
)
@pytest.mark.parametrize("pieces", [pytest.param(1, id="at-once"), pytest.param(4, id="in-pieces")])
async def test_longer_headers_than_the_limit_are_refused_with_431(exact, standin, headers, pieces):
    sent = GET + headers + b"\r\n"
    async with connected(exact.url) as client, asyncio.timeout(60):
        step = -(-len(sent) // pieces)
        for at in range(0, len(sent), step):
            await client.send(sent[at : at + step])
            await asyncio.sleep(0.005)
        assert is_openai_error(await client.answer(), 431)
    assert asked(standin) == []


async def test_a_long_target_is_refused_with_431(exact, standin):
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n")
        assert is_openai_error(await client.answer(), 431)
    assert asked(standin) == []


async def test_headers_up_to_the_limit_pass(exact, standin):
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(GET + b"X-A: " + b"a" * 7000 + b"\r\nX-B: " + b"b" * 7000 + b"\r\n\r\n")
        assert (await client.answer()).status == 200
    assert standin.seen[-1].headers["X-B"] == "b" * 7000


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n"], ids=["first-request", "second-request"])
async def test_headers_that_trickle_in_are_given_up_with_408(hasty, standin, first):
    async with connected(hasty.url) as client, asyncio.timeout(60):
        if first:
            await client.send(first)
            assert (await client.answer()).status == 200
        standin.seen.clear()
        await client.send(b"GET /health HTTP/1.1\r\nHo")
        await asyncio.sleep(0.1)
        await client.send(b"st: te")
        async with asyncio.timeout(8):  # less than where nothing is set
            answer = await client.answer()
        assert is_openai_error(answer, 408)
        assert await client.rest() == b""
    assert asked(standin) == []


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/v1/chat/completions", id="cacheable"),
        pytest.param("/v1/audio/transcriptions", id="not-cacheable"),
    ],
)
@pytest.mark.parametrize(
    "framing",
    [
        pytest.param(b"Content-Length: 100\r\n\r\n{", id="length"),
        pytest.param(b"Content-Length: 1000000\r\n\r\n" + b"a" * 70_000, id="over-the-limit"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", id="chunked"),
    ],
)
async def test_a_body_that_stands_still_is_given_up_with_408(hasty, standin, target, framing):
    async with connected(hasty.url) as client, asyncio.timeout(60):
        await client.send(f"POST {target} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n".encode() + framing)
        async with asyncio.timeout(30):  # half of what it is where nothing is set
            assert is_openai_error(await client.answer(), 408)
    assert asked(standin) == [], "no whole request came to upstream"
    assert hasty.running.parts.identity.confirmed, "a slow client is no reason to doubt upstream"


async def test_a_body_may_be_slow_as_long_as_it_moves(hasty):
    async with connected(hasty.url) as client, asyncio.timeout(60):
        await client.send(POST + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        for at in range(0, len(BODY), 7):
            await asyncio.sleep(0.4)  # longer than 3 s together, and each much shorter
            await client.send(BODY[at : at + 7])
        assert (await client.answer()).status == 200


async def test_connections_over_the_limit_are_told_so(start_sidecar):
    sidecar = await start_sidecar({"semantic": {"mode": "Off"}, "limits": {"connections": 1}})
    async with connected(sidecar.url) as first, asyncio.timeout(60):
        await first.send(request_bytes("GET", "/health"))
        assert (await first.answer()).status == 200
        async with connected(sidecar.url) as second:
            assert is_openai_error(await second.answer(), 503)
        await first.send(request_bytes("GET", "/health"))
        assert (await first.answer()).status == 200


async def test_an_idle_connection_is_closed_after_the_keepalive_time(start_sidecar):
    sidecar = await start_sidecar({"semantic": {"mode": "Off"}, "limits": {"keepalive": "100ms"}})
    async with connected(sidecar.url) as client, asyncio.timeout(60):
        await client.send(request_bytes("GET", "/health"))
        assert (await client.answer()).status == 200
        assert await client.rest() == b""
