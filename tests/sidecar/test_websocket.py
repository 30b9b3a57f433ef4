"""WebSockets pass through: messages both ways, subprotocols, credentials, and the end of either side."""

import asyncio

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from inference_cache_toolkit.standin.wire import connected, request_bytes

REALTIME = "/v1/realtime"


@pytest.fixture
async def exact(start_sidecar):
    return await start_sidecar({"semantic": {"mode": "Off"}})


@pytest.fixture
async def before(start_sidecar):
    """`await before(handler)`: a sidecar whose upstream answers WebSocket handshakes with `handler`."""
    runners = []

    async def begin(handler):
        async def answer(request):
            if request.headers.get("Upgrade") == "websocket":
                return await handler(request)
            return web.json_response({"data": [{"id": "tiny", "root": "/m"}]})

        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return await start_sidecar({"semantic": {"mode": "Off"}}, f"http://127.0.0.1:{runner.addresses[0][1]}")

    yield begin
    for runner in runners:
        await runner.cleanup()


async def test_messages_pass_both_ways_as_they_are(exact):
    async with asyncio.timeout(60), exact.session.ws_connect(exact.url + REALTIME) as socket:
        for text in ("hello", "", "Grüße 🎉", "x" * 2_000_000):
            await socket.send_str(text)
            assert await socket.receive_str() == text
        for data in (b"\x00\xff", b"", b"y" * 2_000_000):
            await socket.send_bytes(data)
            assert await socket.receive_bytes() == data


async def test_a_socket_of_the_clients_lives_as_long_as_it_wants(exact, standin):
    async with asyncio.timeout(60), exact.session.ws_connect(exact.url + REALTIME) as socket:
        assert socket._response.headers["Cache-Status"] == 'inference-cache; fwd=bypass; detail="websocket"'
        await socket.send_str("one")
        await socket.receive_str()
    assert socket.close_code == aiohttp.WSCloseCode.OK
    assert standin.seen[-1].path == REALTIME


async def test_the_handshake_carries_credentials_query_and_subprotocol(before):
    seen = []

    async def handler(request):
        seen.append(request)
        socket = web.WebSocketResponse(protocols=("realtime",))
        await socket.prepare(request)
        await socket.send_str("hello")
        await socket.close(code=4001, message=b"enough")
        return socket

    sidecar = await before(handler)
    headers = {"Authorization": "Bearer key", "X-Kept": "1"}
    url = sidecar.url + REALTIME + "?model=tiny"
    async with asyncio.timeout(60), sidecar.session.ws_connect(url, headers=headers, protocols=("other", "realtime")) as socket:
        assert socket.protocol == "realtime"
        assert await socket.receive_str() == "hello"
        ended = await socket.receive()
        assert ended.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        assert socket.close_code == 4001
    assert seen[0].headers["Authorization"] == "Bearer key"
    assert seen[0].headers["X-Kept"] == "1"
    assert seen[0].path_qs == REALTIME + "?model=tiny"


async def test_a_refused_handshake_is_refused_with_the_same_status(before):
    async def handler(request):
        return web.json_response({"error": "Unauthorized"}, status=401)

    sidecar = await before(handler)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await sidecar.session.ws_connect(sidecar.url + REALTIME)
    assert refused.value.status == 401
    assert "Cache-Status" in refused.value.headers
    assert sidecar.running.parts.identity.confirmed


async def test_no_upstream_is_a_502(start_sidecar):
    sidecar = await start_sidecar({"semantic": {"mode": "Off"}}, "http://127.0.0.1:1", ready=False)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await sidecar.session.ws_connect(sidecar.url + REALTIME)
    assert refused.value.status == 502


async def test_a_client_that_leaves_ends_the_socket_upstream(before):
    ended = asyncio.Event()

    async def handler(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        ended.set()
        return socket

    sidecar = await before(handler)
    async with asyncio.timeout(60):
        socket = await sidecar.session.ws_connect(sidecar.url + REALTIME)
        await socket.send_str("hello")
        socket._response.connection.transport.abort()
        await ended.wait()
        await socket.close()


async def test_an_upstream_that_dies_ends_the_clients_socket(before):
    async def handler(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        request.transport.abort()
        return socket

    sidecar = await before(handler)
    async with asyncio.timeout(60), sidecar.session.ws_connect(sidecar.url + REALTIME) as socket:
        await socket.send_str("hello")
        ended = await socket.receive()
        assert ended.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param("Upgrade: websocket", id="no-connection-header"),
        pytest.param("Upgrade: websocket\r\nConnection: Upgrade", id="no-key"),
        pytest.param("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x", id="bad-key"),
    ],
)
async def test_a_broken_handshake_is_a_clear_error(exact, headers):
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(request_bytes("GET", REALTIME, headers))
        answer = await client.answer()
    assert 400 <= answer.status < 500
    assert answer.get("Cache-Status")


async def test_another_upgrade_is_an_ordinary_request(exact):
    async with connected(exact.url) as client, asyncio.timeout(60):
        await client.send(request_bytes("GET", "/health", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA"))
        assert (await client.answer()).status == 200
        await client.send(request_bytes("GET", "/health"))
        assert (await client.answer()).status == 200
