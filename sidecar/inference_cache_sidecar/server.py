"""The listening side: aiohttp's low-level server with limits on heads and errors in OpenAI's form.

`app` starts it with the pipeline's handler. It sits under aiohttp's router because a hit costs less than a route.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from inference_cache_sidecar import cache_status
from inference_cache_sidecar.errors import error_body, error_response
from inference_cache_sidecar.half_closed import CAN_TELL, HalfClosedWatch, Progress

LINGER_SECONDS: Final = 2.0
"""How long what a client still sends is read after its request was refused."""
_HEAD_END: Final = b"\r\n\r\n"
_HEAD_TOO_LONG: Final = "the request's headers are longer than this server takes"


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bytes and seconds a client may take."""

    header_bytes: int
    header_seconds: float
    keepalive_seconds: float
    connections: int | None = None
    """Clients at once; None = no limit."""


class Connection(RequestHandler):
    """One client connection; gives up on a request head that trickles in or does not end."""

    __slots__ = ("_half_closed", "_head_bytes", "_limits", "_server", "_timer")

    def __init__(self, server: "ProxyServer", loop: asyncio.AbstractEventLoop, limits: ServerLimits) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.keepalive_seconds,
            max_line_size=limits.header_bytes,
            max_field_size=limits.header_bytes,
            max_headers=limits.header_bytes,
            access_log=None,  # type: ignore[arg-type]  # aiohttp tests it for truth; its annotation forgets None
            auto_decompress=False,
            lingering_time=LINGER_SECONDS,
        )
        self._server = server
        self._limits = limits
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        """Runs while a head is incomplete, and after a refusal."""
        self._half_closed: HalfClosedWatch | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._server.full:
            self._refuse(503, "Service Unavailable", "too many connections")
            self.force_close()

    def data_received(self, data: bytes) -> None:
        too_long = self._head_bytes + len(data) > self._limits.header_bytes
        if too_long and self._between_requests and _HEAD_END not in data:
            self._refuse(431, "Request Header Fields Too Large", _HEAD_TOO_LONG)
            return
        super().data_received(data)
        if self._messages and not too_long and self._timer is None:
            self._head_bytes = 0
            return
        if self._between_requests:
            self._head_continues(len(data))
            return
        if too_long and self._messages:
            self._measure_head(self._messages[-1][0])
        self._head_bytes = 0
        if not self._close:
            self._stop_timer()

    @property
    def _between_requests(self) -> bool:
        """All requests that were read are answered; a part of the next one's head may have come."""
        return self._waiter is not None and not self._messages and not self._close

    @property
    def idle(self) -> bool:
        """No request, or part of one, is there."""
        return self._between_requests and not self._head_bytes

    @property
    def draining(self) -> bool:
        return self._server.draining

    def _head_continues(self, size: int) -> None:
        self._head_bytes += size
        if self._timer is None:
            self._timer = self._loop.call_later(self._limits.header_seconds, self._head_too_slow)

    def _measure_head(self, message: object) -> None:
        """aiohttp limits every line, not their sum. Where the sum is too long, this connection is told so, and ends."""
        raw_headers = getattr(message, "raw_headers", ())
        if sum(len(name) + len(value) for name, value in raw_headers) > self._limits.header_bytes:
            self._request_handler = self._head_too_long

    async def _head_too_long(self, request: web.BaseRequest) -> web.StreamResponse:
        return self.handle_error(request, 431, message=_HEAD_TOO_LONG)

    def _head_too_slow(self) -> None:
        self._timer = None
        if self._between_requests:
            self._refuse(408, "Request Timeout", f"the request's headers took longer than {self._limits.header_seconds:g} s")

    def eof_received(self) -> bool:  # type: ignore[override]  # True keeps the connection open, as asyncio defines it
        """A client that shut its writing side still gets the answer to what it asked before; one that is gone ends the work."""
        if not CAN_TELL or self._upgraded or self._close or self.transport is None or self._progress(0) is Progress.UNASKED:
            return False
        request = self._current_request
        sent = 0 if request is None else request.writer.output_size
        self._half_closed = HalfClosedWatch(self.transport, lambda: self._progress(sent), self.transport.abort)
        if not sent and (request is None or request.version >= HttpVersion11):
            self._half_closed.probe()
        return True

    def _progress(self, sent_before: int) -> Progress:
        request = self._current_request
        if self._between_requests or (request is not None and not request.content.is_eof()):
            return Progress.UNASKED
        return Progress.SENT if request is not None and request.writer.output_size != sent_before else Progress.SILENT

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        if self._half_closed is not None:
            self._half_closed.stop()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, reason: str, message: str) -> None:
        """Answer without a request, and hang up. What the client still sends is read for a moment, so that it sees the answer."""
        if self.transport is None:
            return
        body = error_body(status, message)
        headers = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nCache-Status: {cache_status.UNASKED}"
        self.transport.write(f"HTTP/1.1 {status} {reason}\r\n{headers}\r\nConnection: close\r\n\r\n".encode() + body)
        self.transport.write_eof()
        self.close()
        self._stop_timer()
        self._timer = self._loop.call_later(LINGER_SECONDS, self.force_close)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What aiohttp could not parse, or what no edge caught: a clear JSON error, and the connection ends."""
        self.log_debug("request failed: %s", type(exc).__name__)
        if request.writer.output_size:
            raise ConnectionError("an answer has begun: the connection can only be cut")
        if isinstance(exc, LineTooLong):
            status, message = 431, _HEAD_TOO_LONG
        response = error_response(status, (message or "the request could not be handled").splitlines()[0].rstrip(":"))
        response.headers["Cache-Status"] = cache_status.UNASKED
        response.force_close()
        return response


class ProxyServer(web.Server):
    """Makes a `Connection` for every client."""

    def __init__(self, handler: web.RequestHandler | object, limits: ServerLimits) -> None:
        super().__init__(handler, handler_cancellation=True)  # type: ignore[arg-type]  # any async callable of a request
        self._limits = limits
        self.draining = False

    def use(self, limits: ServerLimits) -> None:
        """For clients that connect from now on."""
        self._limits = limits

    @property
    def busy(self) -> int:
        """Connections with a request that is not wholly answered."""
        return sum(not connection.idle for connection in self._connections if isinstance(connection, Connection))

    def drain(self, draining: bool = True) -> None:
        """Connections end with the answer that they carry now, or the next one."""
        self.draining = draining

    def close_idle(self) -> None:
        for connection in list(self._connections):
            if isinstance(connection, Connection) and connection.idle:
                # Not `close`, which leaves the transport open until the server ends.
                connection.force_close()

    @property
    def full(self) -> bool:
        return self._limits.connections is not None and len(self._connections) > self._limits.connections

    def __call__(self) -> Connection:
        return Connection(self, self._loop, self._limits)
