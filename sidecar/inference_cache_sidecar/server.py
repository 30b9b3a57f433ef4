"""The listening side: aiohttp's low-level server with limits on heads and errors in OpenAI's form.

`app` starts it with the pipeline's handler. It sits under aiohttp's router because a hit costs less than a route.
"""

import asyncio
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from inference_cache_sidecar.errors import error_body, error_response


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bytes and seconds a client may take."""

    header_bytes: int
    header_seconds: float
    keepalive_seconds: float
    connections: int | None = None
    """Clients at once; None = no limit."""


class Connection(RequestHandler):
    """One client connection; gives up on a request head that trickles in."""

    __slots__ = ("_head_seconds", "_head_timer", "_server")

    def __init__(self, server: "ProxyServer", loop: asyncio.AbstractEventLoop, limits: ServerLimits) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.keepalive_seconds,
            max_line_size=limits.header_bytes,
            max_field_size=limits.header_bytes,
            access_log=None,  # type: ignore[arg-type]  # aiohttp tests it for truth; its annotation forgets None
            auto_decompress=False,
            lingering_time=2.0,
        )
        self._server = server
        self._head_seconds = limits.header_seconds
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._server.full:
            self._refuse(503, "Service Unavailable", "too many connections")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        head_incomplete = not self._messages and self._current_request is None and not self._request_in_progress
        if head_incomplete and self._head_timer is None and self._waiter is not None:
            self._head_timer = self._loop.call_later(self._head_seconds, self._head_too_slow)
        elif not head_incomplete and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().connection_lost(exc)

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self._current_request is not None or self._messages or self.transport is None:
            return
        self._refuse(408, "Request Timeout", f"the request's headers took longer than {self._head_seconds:g} s")

    def _refuse(self, status: int, reason: str, message: str) -> None:
        """Answer without a request, and hang up."""
        body = error_body(status, message)
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        if self.transport is not None:
            self.transport.write(head.encode() + body)
        self.force_close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What aiohttp could not parse, or what no edge caught: a clear JSON error, and the connection ends."""
        self.log_debug("request failed: %s", type(exc).__name__)
        if isinstance(exc, LineTooLong):
            status, message = 431, "the request's headers are longer than this server takes"
        response = error_response(status, (message or "the request could not be handled").splitlines()[0])
        response.force_close()
        return response


class ProxyServer(web.Server):
    """Makes a `Connection` for every client."""

    def __init__(self, handler: web.RequestHandler | object, limits: ServerLimits) -> None:
        super().__init__(handler, handler_cancellation=True)  # type: ignore[arg-type]  # any async callable of a request
        self._limits = limits

    @property
    def full(self) -> bool:
        return self._limits.connections is not None and len(self._connections) > self._limits.connections

    def __call__(self) -> Connection:
        return Connection(self, self._loop, self._limits)
