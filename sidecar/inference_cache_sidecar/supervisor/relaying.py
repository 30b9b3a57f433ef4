"""Passes connections to the model server byte for byte, while no worker takes them. `supervising` turns it on and off."""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from inference_cache_sidecar.supervisor.framing import AnswerFraming
from inference_cache_sidecar.supervisor.plan import Front

CONNECT_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 2.0
REST_SECONDS: Final = 0.1
ACCEPTED_AT_ONCE: Final = 64
_BODY: Final = b'{"error":{"message":"the model server cannot be reached","type":"api_error","param":null,"code":502}}'
_UNREACHABLE: Final = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(_BODY) + _BODY
)
_log = logging.getLogger(__name__)


class _End(asyncio.Protocol):
    """One end of a relayed connection. A slow reader stops the other end's reading; an end of sending is passed on."""

    def __init__(self, ended: Callable[["_End"], None]) -> None:
        self._ended = ended
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None
        self.gone = False
        self._early = bytearray()
        self._ended_early = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.other is None:
            self.transport.pause_reading()

    def join(self, other: "_End") -> None:
        """From now on what is received goes there, what came before first."""
        self.other = other
        if self._early:
            self.data_received(bytes(self._early))
            self._early.clear()
        if self._ended_early:
            self.eof_received()
        elif self.transport is not None:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.send(data)
        else:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        """Before 3.11.3, asyncio reads on though its reading was paused as soon as the connection was made."""
        self._early += data
        if self.transport is not None:
            self.transport.resume_reading()
            self.transport.pause_reading()

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.gone:
            self.transport.write(data)

    def eof_received(self) -> bool:
        if self.other is None:
            self._ended_early = True
        elif self.other.transport is not None and not self.other.gone and self.other.transport.can_write_eof():
            with suppress(OSError):
                self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.gone:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.gone:
            self.other.transport.resume_reading()

    def connection_lost(self, error: BaseException | None) -> None:
        self.gone = True
        self._ended(self)


class Relayed:
    """One connection: the client's end and the model server's. Ends when both have ended, or one has broken."""

    def __init__(self, ended: Callable[["Relayed"], None]) -> None:
        self._ended = ended
        self.client = _End(self._lost)
        self.server = _ServerEnd(self._lost, self)
        self.framing = AnswerFraming()
        self.last = False
        """It ends with the next answer that can say so."""

    def join(self) -> None:
        self.client.join(self.server)
        self.server.join(self.client)

    @property
    def gone(self) -> bool:
        """Both ends have been lost."""
        return self.client.gone and self.server.gone

    def abort(self) -> None:
        for end in (self.client, self.server):
            if end.transport is not None:
                end.transport.abort()

    def close(self) -> None:
        """Send what is there, and hang up."""
        for end in (self.client, self.server):
            if end.transport is not None:
                end.transport.close()

    def _lost(self, end: _End) -> None:
        other = self.server if end is self.client else self.client
        if other.transport is not None and not other.gone:
            other.transport.close()
        elif other.gone or other.transport is None:
            self._ended(self)


class _ServerEnd(_End):
    def __init__(self, ended: Callable[[_End], None], relayed: Relayed) -> None:
        super().__init__(ended)
        self._relayed = relayed

    def eof_received(self) -> bool:
        """A model server that ends its answers is done with the connection."""
        self._relayed.close()
        return True

    def data_received(self, data: bytes) -> None:
        framing = self._relayed.framing
        super().data_received(framing.answered(data, self._relayed.last))
        if framing.announced and framing.between:
            self._relayed.close()

    def send(self, data: bytes) -> None:
        self._relayed.framing.asked(data)
        super().send(data)


class Relays:
    """Accepts on the fronts' sockets while it is on. `counted` is told how many connections there are, at each change."""

    def __init__(self, fronts: tuple[Front, ...], counted: Callable[[int, int], None]) -> None:
        """`counted(now, ever)`."""
        self._counted = counted
        self._listening = [
            (socket.socket(fileno=descriptor), front.upstream) for front in fronts for descriptor in front.descriptors if front.upstream
        ]
        for listening, _ in self._listening:
            listening.setblocking(False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[Relayed] = set()
        self._ever = 0
        self.on = False

    def __len__(self) -> int:
        return len(self._tasks) + len(self._open)

    def start(self) -> None:
        """Nothing is registered while a worker accepts, so that no connection wakes two processes."""
        self.on = True
        for listening, upstream in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening, upstream)

    def stop(self) -> None:
        """Connections that are here end with their next answer, which says so."""
        self.on = False
        for listening, _ in self._listening:
            asyncio.get_running_loop().remove_reader(listening)
        self._let_go()

    def close(self) -> None:
        """No socket listens any more, as far as this process is concerned, and clients that ask nothing are hung up on."""
        self.stop()
        self.close_idle()
        for listening, _ in self._listening:
            listening.close()
        self._listening.clear()

    def close_idle(self) -> None:
        """Hang up on clients that ask nothing at the moment."""
        for relayed in list(self._open):
            if relayed.framing.between:
                relayed.close()

    def abort(self) -> None:
        for task in self._tasks:
            task.cancel()
        for relayed in list(self._open):
            relayed.abort()

    def _let_go(self) -> None:
        for relayed in list(self._open):
            relayed.last = True

    def _accept(self, listening: socket.socket, upstream: tuple[str, int]) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                client, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.warning("no connection can be accepted: %s", error.strerror)
                self._rest(listening, upstream)
                return
            client.setblocking(False)
            self._ever += 1
            task = asyncio.get_running_loop().create_task(self._pass_on(client, upstream))
            self._tasks.add(task)
            task.add_done_callback(self._passed_on)
            self._count()

    def _rest(self, listening: socket.socket, upstream: tuple[str, int]) -> None:
        """Without a free descriptor the socket would wake this loop again and again."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(REST_SECONDS, lambda: self.on and loop.add_reader(listening, self._accept, listening, upstream))

    def _passed_on(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._count()

    async def _pass_on(self, client: socket.socket, upstream: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        relayed = Relayed(self._finished)
        relayed.last = not self.on
        await loop.connect_accepted_socket(lambda: relayed.client, client)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.create_connection(lambda: relayed.server, *upstream)
        except OSError:
            await _refuse(relayed.client)
            return
        except asyncio.CancelledError:
            relayed.abort()
            raise
        self._open.add(relayed)
        relayed.last = not self.on
        relayed.join()
        if relayed.client.gone:
            relayed.abort()
        if relayed.gone:
            self._open.discard(relayed)

    def _finished(self, relayed: Relayed) -> None:
        self._open.discard(relayed)
        self._count()

    def _count(self) -> None:
        self._counted(len(self), self._ever)


async def _refuse(client: _End) -> None:
    """What the client still sends is read for a moment, so that it sees the answer."""
    if client.transport is None or client.gone:
        return
    client.transport.write(_UNREACHABLE)
    with suppress(OSError):  # it has hung up meanwhile
        client.transport.write_eof()
    client.transport.resume_reading()
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while not client.gone:  # noqa: ASYNC110  bounded, and rare
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    finally:
        client.transport.abort()
