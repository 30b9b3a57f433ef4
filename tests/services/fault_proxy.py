"""A TCP proxy that fails on demand, between a client and a server of the tests. It lives in the test's event loop."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from inference_cache_toolkit.processes import free_port

HOST: Final = "127.0.0.1"
CHUNK_BYTES: Final = 65536
HELD_CHUNKS: Final = 64
"""What one direction holds back at most, before the sender is held back too."""


class FaultProxy:
    """In front of `upstream`, a port of this machine. Stays on `port` through every fault."""

    def __init__(self, upstream: int) -> None:
        self.port = free_port()
        self.accepted = 0
        """Connections since it was made."""
        self._upstream = upstream
        self._flowing = asyncio.Event()
        self._delay_seconds = 0.0
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._links)

    async def heal(self) -> None:
        """Pass everything on at once, and accept connections; what `hang` held back goes out first."""
        self._delay_seconds = 0.0
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port)

    async def cut(self) -> None:
        """Drop all connections with what they hold, and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def hang(self) -> None:
        """Accept connections and bytes, and pass nothing on, either way."""
        self._flowing.clear()

    def delay(self, seconds: float) -> None:
        """Answers arrive that much later; their rate stays."""
        self._delay_seconds = seconds

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._server is None:
            writer.transport.abort()
            return
        link = asyncio.create_task(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)
        # Cut before it began to run, it would leave its connection open.
        link.add_done_callback(lambda _: writer.transport.abort())

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        writers = [writer]
        try:
            await self._flowing.wait()
            answers, asked = await asyncio.open_connection(HOST, self._upstream)
            writers.append(asked)
            await _until_one_ends(self._pump(reader, asked, late=False), self._pump(answers, writer, late=True))
        except asyncio.CancelledError:
            for each in writers:
                each.transport.abort()
        except OSError:
            pass
        finally:
            for each in writers:
                each.close()
            for each in writers:
                with suppress(OSError):
                    await each.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, late: bool) -> None:
        """Pass on what comes, each piece when it is due."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS)
        await _until_one_ends(self._receive(reader, held, late=late), self._send(held, writer))

    async def _receive(self, reader: asyncio.StreamReader, held: asyncio.Queue[tuple[float, bytes]], *, late: bool) -> None:
        """Never ends by itself: an empty piece at the end tells the sender to."""
        now = asyncio.get_running_loop().time
        piece = b"-"
        while piece:
            piece = await _read(reader)
            await held.put((now() + (self._delay_seconds if late else 0.0), piece))
        await asyncio.Event().wait()

    async def _send(self, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due, piece = await held.get()
            await asyncio.sleep(max(0.0, due - now()))
            await self._flowing.wait()
            if not piece:
                return
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def fault_proxy(upstream: int) -> AsyncIterator[FaultProxy]:
    """A proxy that passes everything on, until told otherwise."""
    proxy = FaultProxy(upstream)
    try:
        await proxy.heal()
        yield proxy
    finally:
        await proxy.cut()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Empty at the end, however it came."""
    try:
        return await reader.read(CHUNK_BYTES)
    except OSError:
        return b""


async def _until_one_ends(*parts: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
