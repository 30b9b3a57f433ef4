"""Connections past the cache: byte for byte, both ways, with each side's end and pace passed on."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from inference_cache_sidecar.settings import LISTEN, Address
from inference_cache_sidecar.supervisor.launching import bound
from inference_cache_sidecar.supervisor.plan import Front
from inference_cache_sidecar.supervisor.relaying import Relays
from inference_cache_toolkit.processes import free_port

SECONDS = 30.0
MUCH = os.urandom(8 << 20)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Counts:
    now = ever = 0

    def __call__(self, now: int, ever: int) -> None:
        self.now, self.ever = now, ever


@asynccontextmanager
async def relays(upstream: int) -> AsyncIterator[tuple[int, Relays, Counts]]:
    (descriptor,) = bound(LISTEN, Address("127.0.0.1", 0))
    with socket.socket(fileno=os.dup(descriptor)) as same:
        port = same.getsockname()[1]
    counts = Counts()
    made = Relays((Front("listen", (descriptor,), ("127.0.0.1", upstream)),), counts)
    made.start()
    try:
        yield port, made, counts
    finally:
        made.close()
        made.abort()
        async with asyncio.timeout(SECONDS):
            while made:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def upstream(handle: Handler) -> AsyncIterator[int]:
    """Whose handlers have ended in the end, and hung up."""
    running = set()

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        await handle(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        running.discard(asyncio.current_task())

    server = await asyncio.start_server(handled, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    async with asyncio.timeout(SECONDS):
        while running:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_bytes_pass_both_ways_and_a_half_closed_client_still_gets_its_answer() -> None:
    async def echo_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(-1))
        await writer.drain()

    async with (
        upstream(echo_after_the_end) as to,
        relays(to) as (port, _, counts),
        asyncio.timeout(SECONDS),
        client(port) as (reader, writer),
    ):
        writer.write(MUCH)
        writer.write_eof()
        assert await reader.read(-1) == MUCH
        writer.close()
        while counts.now:
            await asyncio.sleep(0.01)
        assert counts.ever == 1


async def test_a_client_that_does_not_read_stops_the_model_server_and_not_this_process_memory() -> None:
    sent = 0

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            while sent < 64 << 20:
                writer.write(b"x" * 65_536)
                await writer.drain()
                sent += 65_536
        except ConnectionError:
            pass

    async with upstream(pour) as to, relays(to) as (port, _, _), asyncio.timeout(SECONDS), client(port) as (_, writer):
        before = -1
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(0.5)  # longer than any write that can go on takes
        assert sent < 32 << 20
        writer.transport.abort()


async def test_a_client_that_hangs_up_ends_the_call_to_the_model_server() -> None:
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        ended.set()

    async with upstream(wait) as to, relays(to) as (port, _, _), asyncio.timeout(SECONDS), client(port) as (_, writer):
        writer.write(b"POST / HTTP/1.1\r\n\r\n")
        await writer.drain()
        writer.close()
        await ended.wait()


async def test_without_a_model_server_the_client_is_told() -> None:
    async with relays(free_port()) as (port, _, _), asyncio.timeout(SECONDS), client(port) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\n\r\n")
        answer = await reader.read(-1)
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert answer.endswith(b'"code":502}}')


@pytest.mark.parametrize("asked_while_on", [True, False])
async def test_a_kept_connection_ends_with_its_answer_once_a_worker_is_back(asked_while_on: bool) -> None:
    go = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline() != b"\r\n":
            pass
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read(-1)

    async with upstream(answer) as to, relays(to) as (port, made, _), asyncio.timeout(SECONDS), client(port) as (reader, writer):
        if asked_while_on:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
        while not made:
            await asyncio.sleep(0.01)
        made.stop()
        if not asked_while_on:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
        go.set()
        answer_text = await reader.read(-1)
        assert answer_text.startswith(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
        assert answer_text.endswith(b"ok")


async def test_nothing_is_lost_that_was_sent_before_the_model_server_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 3.11.3, asyncio forgets that reading was paused when the connection was made."""

    def add_reader(self: Any, descriptor: int, callback: Callable[..., None], *arguments: object) -> None:
        if not self._closing:
            self._loop._add_reader(descriptor, callback, *arguments)

    monkeypatch.setattr("asyncio.selector_events._SelectorTransport._add_reader", add_reader)

    async def echo_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(-1))

    async with upstream(echo_after_the_end) as to, relays(to) as (port, _, _), asyncio.timeout(SECONDS):
        with socket.create_connection(("127.0.0.1", port)) as asking:
            asking.sendall(b"POST / HTTP/1.1\r\n\r\n")
            asking.shutdown(socket.SHUT_WR)
            reader, writer = await asyncio.open_connection(sock=asking)
            assert await reader.read(-1) == b"POST / HTTP/1.1\r\n\r\n"
            writer.close()
