"""Pass-through: bodies and streams go on as they run, byte for byte, in bounded memory."""

import asyncio
import os
import re
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from inference_cache_toolkit.processes import free_port, start, stop
from inference_cache_toolkit.standin.wire import answer_bytes, connected, request_bytes, scripted

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
MEGABYTE = 1_000_000
EVENTS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def chat_chunk(content=None, finish=None, **more):
    delta = {"role": "assistant", "content": content} if content is not None else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    return b"data: " + orjson.dumps({**head, "choices": [choice], **more}) + b"\n\n"


def usage_chunk():
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    return b"data: " + orjson.dumps({**head, "choices": [], "usage": usage}) + b"\n\n"


@pytest.fixture
async def before(start_sidecar):
    """`await before(upstream)`: a sidecar without a semantic tier in front of a scripted upstream."""

    async def begin(upstream, spec=None):
        return await start_sidecar({"semantic": {"mode": "Off"}, **(spec or {})}, upstream.url)

    return begin


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        pytest.param("/v1/audio/speech", {}, id="pass-through"),
        pytest.param(CHAT, {"stream": True, "store": True, "n": 1}, id="leader"),
        pytest.param(CHAT, {"stream": True, "stream_options": {"include_usage": True}}, id="leader-that-asked-for-usage"),
    ],
)
async def test_a_stream_is_not_held_back_and_its_bytes_are_upstreams(before, path, fields):
    """Upstream sends each part only after the client has seen the one before.

    Where the sidecar alone asked for usage, the chunk that finishes waits for the usage chunk, which may change it.
    """
    parts = [chat_chunk("a"), chat_chunk("b"), chat_chunk(finish="stop"), usage_chunk(), b"data: [DONE]\n\n"]
    seen = [asyncio.Event() for _ in parts]

    async def script(exchange):
        await exchange.send(EVENTS_HEAD)
        for part, arrived in zip(parts, seen, strict=True):
            await exchange.send(chunk(part))
            await arrived.wait()
        await exchange.send(b"0\r\n\r\n")

    body = orjson.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hello"}], **fields})
    asked_alone = path == CHAT and "stream_options" not in fields
    if asked_alone:
        seen[2].set()
        seen[3].set()
    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        received = b""
        async with sidecar.session.post(sidecar.url + path, data=body, headers={"Content-Type": "application/json"}) as response:
            for part, arrived in zip(parts, seen, strict=True):
                expected = received if asked_alone and part == usage_chunk() else received + part
                while len(received) < len(expected):
                    received += await response.content.readany()
                assert received.startswith(expected)
                assert asked_alone or received == expected
                arrived.set()
            assert await response.read() == b""


async def test_the_parts_of_an_event_are_not_held_back_in_pass_through(before):
    """A pass-through stream may be anything: not even events are waited for."""
    go_on = asyncio.Event()

    async def script(exchange):
        await exchange.send(EVENTS_HEAD + chunk(b"data: ha"))
        await go_on.wait()
        await exchange.send(chunk(b"lf\n\n") + b"0\r\n\r\n")

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        async with sidecar.session.get(sidecar.url + "/events") as response:
            assert await response.content.readany() == b"data: ha"
            go_on.set()
            assert await response.read() == b"lf\n\n"


async def test_the_head_of_an_answer_is_not_held_back(before):
    go_on = asyncio.Event()

    async def script(exchange):
        await exchange.send(EVENTS_HEAD)
        await go_on.wait()
        await exchange.send(chunk(b"data: x\n\n") + b"0\r\n\r\n")

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        async with sidecar.session.get(sidecar.url + "/events") as response:
            assert response.status == 200
            go_on.set()
            assert await response.read() == b"data: x\n\n"


async def test_an_upload_is_not_held_back(before):
    """Upstream has the first part before the client sends the second."""
    first_came, sizes = asyncio.Event(), []

    async def take(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        sizes.append(await reader.readuntil(b"one\r\n"))
        first_came.set()
        sizes.append(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(answer_bytes(b"{}"))
        await writer.drain()
        writer.close()

    async with scripted(lambda exchange: exchange.send(b"")) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        server = await asyncio.start_server(take, "127.0.0.1", 0)
        sidecar.running.parts.upstream.address = sidecar.running.parts.upstream.address.with_port(server.sockets[0].getsockname()[1])
        async with connected(sidecar.url) as client:
            await client.send(b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"one"))
            await first_came.wait()
            await client.send(chunk(b"two") + b"0\r\n\r\n")
            assert (await client.answer()).status == 200
        server.close()
    assert b"two" in sizes[1]


@asynccontextmanager
async def counting_upstream():
    """Takes bodies of any size without keeping them; answers with what framed them and how many bytes came."""
    seen = []
    who = {"/version": b'{"version":"1"}', "/metrics": b"", "/v1/models": b'{"data":[{"id":"tiny","root":"/m"}]}'}

    async def take(reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ")[1]
                length = re.search(r"(?i)content-length: (\d+)", head)
                total, tail = 0, b""
                while total < int(length[1]) if length else "chunked" in head and not tail.endswith(b"\r\n0\r\n\r\n"):
                    data = await reader.read(1 << 18)
                    if not data:
                        return
                    total, tail = total + len(data), (tail + data)[-8:]
                if path not in who:
                    seen.append((head, total))
                writer.write(answer_bytes(who.get(path, orjson.dumps(Counter(bytes=total)))))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()


@asynccontextmanager
async def sidecar_process(upstream, folder):
    """URL and process id of a sidecar as a user starts it."""
    port, admin = free_port(), free_port()
    addresses = ("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--upstream", upstream)
    command = [Path(sys.executable).with_name("inference-cache"), "sidecar", *addresses, "--semantic-mode", "Off"]
    child = start("sidecar", command, folder / "sidecar.log", {**os.environ})
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(60):
            while not await ready(session, f"http://127.0.0.1:{admin}/readyz"):
                assert child.process.poll() is None, child.tail()
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}", child.process.pid
    finally:
        await asyncio.to_thread(stop, child)


async def ready(session, url):
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


def peak_bytes(pid):
    """The most memory the process has held at a time since this was last asked."""
    status = Path(f"/proc/{pid}/status").read_text()
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


async def megabytes(count):
    piece = b"a" * MEGABYTE
    for _ in range(count):
        yield piece


async def test_hundred_megabytes_pass_uncached_as_they_are_framed_in_bounded_memory(tmp_path):
    async with (
        counting_upstream() as (upstream, seen),
        sidecar_process(upstream, tmp_path) as (url, pid),
        aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session,
        asyncio.timeout(300),
    ):
        warmed = await session.post(url + CHAT, data=megabytes(2))
        assert warmed.status == 200
        warmed.release()
        seen.clear()
        peak_bytes(pid)
        before = peak_bytes(pid)
        for path in (CHAT, "/v1/audio/transcriptions"):
            for headers in ({"Content-Length": str(100 * MEGABYTE)}, {}):
                async with session.post(url + path, data=megabytes(100), headers=headers) as response:
                    assert response.status == 200
                    assert "fwd=bypass" in response.headers["Cache-Status"]
        grown = peak_bytes(pid) - before
    for head, total in seen[::2]:
        assert re.search(r"(?i)content-length: 100000000\r\n", head)
        assert "chunked" not in head.lower()
        assert total == 100 * MEGABYTE
    for head, total in seen[1::2]:
        assert re.search(r"(?i)transfer-encoding: chunked\r\n", head)
        assert "content-length" not in head.lower()
        assert total > 100 * MEGABYTE
    assert len(seen) == 4
    assert grown < 20 * MEGABYTE, f"{grown / MEGABYTE:.1f} MB more at the peak"


async def test_a_client_that_reads_slowly_makes_upstream_wait(before):
    """A long answer is not gathered in memory for a client that does not read."""
    sent = 0

    async def script(exchange):
        nonlocal sent
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(100):
            await exchange.send(b"a" * MEGABYTE)
            sent += MEGABYTE

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream)
        async with connected(sidecar.url) as client:
            client.reader._limit = 1 << 16  # so that the test's own reader does not take it all
            await client.send(request_bytes("GET", "/weights"))
            await asyncio.sleep(0.5)
            assert sent < 30 * MEGABYTE, "held by sockets and buffers alone"
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"Content-Length: 100000000" in head
            got = 0
            while got < 100 * MEGABYTE:
                got += len(await client.reader.read(MEGABYTE))
    assert got == 100 * MEGABYTE


async def test_an_answer_over_the_limit_passes_whole_and_is_not_kept(before):
    text = "a" * 300_000
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = orjson.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]})

    async def script(exchange):
        await exchange.send(answer_bytes(body))

    async with scripted(script) as upstream, asyncio.timeout(60):
        sidecar = await before(upstream, {"limits": {"answerBytes": "100Ki"}})
        for number in (1, 2):
            answer = await sidecar.chat("hello")
            assert (answer.kind, answer.body) == ("miss", body)
            assert len(upstream.seen) == number
        assert sidecar.running.store.stats().entries == 0


async def test_bypass_mode_looks_at_nothing(start_sidecar, standin):
    sidecar = await start_sidecar({"mode": "Bypass", "semantic": {"mode": "Off"}})
    for _ in range(2):
        answer = await sidecar.chat("hello")
        assert (answer.kind, "mode" in answer.cache_status) == ("bypass", True)
    assert standin.inferences == 2
