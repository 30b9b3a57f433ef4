"""A client and a model server of raw bytes: for what no well-behaved library would send. Tests use both."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

HEAD_END: Final = b"\r\n\r\n"
READ_BYTES: Final = 1 << 16
_IDENTITY: Final = {
    b"/version": b'{"version":"0.32.0"}',
    b"/metrics": b"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.5\n",
    b"/v1/models": b'{"object":"list","data":[{"id":"tiny","root":"/models/tiny","parent":null}]}',
}
"""What the sidecar asks to know who upstream is."""


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A request or an answer as it came."""

    head: bytes
    """With the empty line that ends it."""
    body: bytes
    """Without the framing of chunks."""
    framed: bytes
    """The body as it stood on the wire."""

    @property
    def start(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        lines = (line.partition(":") for line in self.head.decode("latin-1").split("\r\n")[1:])
        return [value.strip() for known, _, value in lines if known.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None


async def read_message(reader: asyncio.StreamReader, *, bodyless: bool = False, until_end: bool = False) -> RawMessage:
    """`until_end`: a body without a length runs until the connection ends. Raises IncompleteReadError if it ends too early."""
    head = await reader.readuntil(HEAD_END)
    message = RawMessage(head, b"", b"")
    if bodyless or _has_no_body(message):
        return message
    if "chunked" in (message.get("Transfer-Encoding") or ""):
        return await _chunked(reader, head)
    length = message.get("Content-Length")
    body = await reader.readexactly(int(length)) if length is not None else await reader.read() if until_end else b""
    return RawMessage(head, body, body)


def _has_no_body(message: RawMessage) -> bool:
    return message.start.startswith(b"HTTP/") and (message.status < 200 or message.status in (204, 304))


async def _chunked(reader: asyncio.StreamReader, head: bytes) -> RawMessage:
    body, framed = bytearray(), bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        framed += line
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        chunk = await reader.readexactly(size + 2)
        framed += chunk
        body += chunk[:-2]
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        framed += line
    return RawMessage(head, bytes(body), bytes(framed + b"\r\n"))


@dataclass
class RawClient:
    """One connection; what it sends is up to the caller."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, bodyless: bool = False) -> RawMessage:
        return await read_message(self.reader, bodyless=bodyless, until_end=True)

    async def rest(self) -> bytes:
        """Everything until the connection ends. Raises ConnectionResetError if it is cut."""
        return await self.reader.read()

    def shut_writing(self) -> None:
        self.writer.write_eof()

    def cut(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RawClient]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
    try:
        yield RawClient(reader, writer)
    finally:
        await _closed(writer)


@dataclass
class Exchange:
    """One request to a scripted upstream, and the connection to answer it on."""

    request: RawMessage
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def cut(self) -> None:
        self.writer.transport.abort()

    async def until_hung_up(self) -> None:
        """Returns when the caller has closed its connection."""
        try:
            await self.reader.read()
        except ConnectionError:
            return


Script = Callable[[Exchange], Awaitable[None]]
"""Answers one request; the connection stays open for the next unless the script closes it."""


@dataclass
class ScriptedUpstream:
    """Says who it is like a model server, and answers everything else by `script`."""

    script: Script
    url: str = ""
    seen: list[RawMessage] = field(default_factory=list)
    """Requests that were put to the script."""

    connections: set[asyncio.StreamWriter] = field(default_factory=set)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while True:
                await self._one(await read_message(reader), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.connections.discard(writer)
            await _closed(writer)

    async def _one(self, request: RawMessage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = _IDENTITY.get(request.start.split(b" ")[1]) if request.start.startswith(b"GET ") else None
        if said is None:
            self.seen.append(request)
            await self.script(Exchange(request, reader, writer))
        else:
            writer.write(answer_bytes(said))


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(script)
    server = await asyncio.start_server(upstream.take, "127.0.0.1", 0, limit=1 << 24)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        await asyncio.gather(*map(_closed, upstream.connections))


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Closed for good, also where the other side reads nothing more."""
    if writer.transport.get_write_buffer_size():
        writer.transport.abort()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def request_bytes(method: str, target: str, headers: str = "", body: bytes = b"") -> bytes:
    """`headers`: lines joined by CRLF, without one at the end; a body gets its Content-Length."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    lines = f"{headers}\r\n" if headers else ""
    return f"{method} {target} HTTP/1.1\r\nHost: test\r\n{lines}{length}\r\n".encode("latin-1") + body


def answer_bytes(body: bytes, status: str = "200 OK", headers: str = "Content-Type: application/json") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
