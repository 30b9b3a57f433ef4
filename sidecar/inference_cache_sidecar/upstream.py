"""The client side: one keep-alive pool to the model server, with its errors translated once.

Used by the relay (pass-through), by flights (cacheable misses), by access and identity (small questions of our own).
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from inference_cache_sidecar.errors import UpstreamAborted, UpstreamFault

KEEPALIVE_SECONDS: Final = 4.0
"""Idle connections are dropped before uvicorn does it (5 s), so that a request never meets a closing one."""

DEAD_CONNECTION_SECONDS: Final = 0.25
"""Within this a kept connection that upstream had closed already shows itself."""

_LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError)
_NO_AUTO_HEADERS: Final = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    connect_seconds: float
    idle_seconds: float
    """Longest silence while waiting for (more of) an answer; 0 = none, since a model may think for minutes."""
    header_bytes: int


class Upstream:
    """One model server, by its base URL. Opened and closed by `app`."""

    def __init__(self, base: str, limits: UpstreamLimits) -> None:
        self.base = base.rstrip("/")
        self.address = URL(self.base)
        self._session: aiohttp.ClientSession | None = None
        self.use(limits)
        self._urls: dict[str, URL] = {}

    def use(self, limits: UpstreamLimits) -> None:
        """For requests that are sent from now on."""
        self._header_bytes = limits.header_bytes
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=limits.connect_seconds, sock_read=limits.idle_seconds or None, ceil_threshold=60
        )

    async def open(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ttl_dns_cache=10, socket_factory=_no_delay_socket)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_NO_AUTO_HEADERS,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the upstream session is not open")
        return self._session

    def url(self, raw_path: str) -> URL:
        """`raw_path` (it begins with a slash) goes out as it came in: never decoded, never normalised."""
        known = self._urls.get(raw_path)
        if known is None:
            # Built, not parsed: nothing in a request's target can become a host, a port or a fragment.
            known = URL.build(scheme=self.address.scheme, authority=self.address.raw_authority, path=raw_path, encoded=True)
            if len(self._urls) < 64:
                self._urls[raw_path] = known
        return known

    @asynccontextmanager
    async def send(
        self, method: str, raw_path: str, headers: CIMultiDict[str], body: bytes | AsyncIterator[bytes] | None, *, repeatable: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head; leaving the context early closes the connection, so that upstream stops working.

        `repeatable` requests are sent once more if a kept connection turns out dead before any byte came back.
        Raises UpstreamFault before the head has come.
        """
        response = await self._head(method, raw_path, headers, body, repeatable)
        try:
            yield response
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def _head(
        self, method: str, raw_path: str, headers: CIMultiDict[str], body: bytes | AsyncIterator[bytes] | None, repeatable: bool
    ) -> aiohttp.ClientResponse:
        sent = time.monotonic()
        try:
            return await self.session.request(
                method,
                self.url(raw_path),
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=self._timeout,
                max_line_size=self._header_bytes,
                max_field_size=self._header_bytes,
            )
        except aiohttp.ClientConnectorError as error:
            raise UpstreamFault(502, "the model server does not accept connections") from error
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise UpstreamFault(504, "the model server did not answer in time") from error
        except _LOST as error:
            # Later than this it was no dead connection but a server that died at work, perhaps of this very request.
            if repeatable and time.monotonic() - sent < DEAD_CONNECTION_SECONDS:
                return await self._head(method, raw_path, headers, body, False)
            raise UpstreamFault(502, "the model server closed the connection without an answer") from error
        except aiohttp.ClientError as error:
            raise UpstreamFault(502, "the model server's answer is not HTTP") from error

    async def ask(self, raw_path: str, headers: Mapping[str, str], deadline_seconds: float) -> tuple[int, bytes]:
        """A small GET of our own: status and body. Raises UpstreamFault, also when the deadline passes."""
        try:
            async with (
                asyncio.timeout(deadline_seconds),
                self.send("GET", raw_path, CIMultiDict(headers), None, repeatable=True) as response,
            ):
                return response.status, await response.read()
        except TimeoutError as error:
            raise UpstreamFault(504, "the model server did not answer in time") from error
        except aiohttp.ClientError as error:
            raise UpstreamFault(502, "the model server broke off its answer") from error


async def chunks_of(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes in, never held back. Raises UpstreamAborted if upstream breaks off."""
    content = response.content
    try:
        while chunk := await content.readany():
            yield chunk
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        raise UpstreamAborted("the model server broke off its answer") from error


def _no_delay_socket(address: tuple[object, ...]) -> socket.socket:
    family, kind, protocol = address[0], address[1], address[2]
    made = socket.socket(family=family, type=kind, proto=protocol)  # type: ignore[arg-type]  # as getaddrinfo gave them
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
