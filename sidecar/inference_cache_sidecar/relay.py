"""Pass-through: whatever is not cacheable goes to upstream and back byte for byte, as it runs.

Called by the pipeline for every bypass. Bodies and streams are never held; a client that leaves ends the upstream call.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Final

import aiohttp
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.errors import ClientFault, UpstreamAborted, UpstreamFault
from inference_cache_sidecar.upstream import Upstream, chunks_of

_ABSOLUTE: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
WHOLE_BYTES: Final = 256 * 1024
"""Answers of a known length up to this go out in one write."""


class Relayed(web.StreamResponse):
    """A response whose headers are upstream's own: nothing is added that upstream did not say, but that a draining sidecar hangs up."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if getattr(request.protocol, "draining", False):
            self.force_close()
        return await super().prepare(request)

    async def _prepare_headers(self) -> None:
        absent = [name for name in ("Content-Type", "Server", "Date") if name not in self.headers]
        await super()._prepare_headers()
        for name in absent:
            self.headers.pop(name, None)


class ClientBody:
    """A request body read at most once: up to a limit into memory, the rest as it comes."""

    def __init__(self, request: web.BaseRequest, idle_seconds: float) -> None:
        self._request = request
        self._content = request.content
        self._idle_seconds = idle_seconds
        self.head = b""
        self.whole = False
        """`head` is all there is."""
        self.fault: ClientFault | None = None
        """What went wrong with it, also where it was being streamed."""
        self._asked_to_go_on = False

    def at_hand(self, limit: int) -> bool:
        """Take the whole body without waiting: True if all of it is there, and no longer than `limit` bytes."""
        declared = self._request.content_length
        if declared is None or declared > limit or not self._content.is_eof():
            return False
        self.head = self._content.read_nowait(-1)
        self.whole = True
        return True

    async def read(self, limit: int) -> bool:
        """True if the whole body fits `limit` bytes. Raises ClientFault if it comes too slowly or breaks off."""
        if self.whole:
            return True
        declared = self._request.content_length
        if declared is not None and declared > limit:
            return False
        parts: list[bytes] = []
        size = 0
        while chunk := await self._next():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                break
        self.head = parts[0] if len(parts) == 1 else b"".join(parts)
        self.whole = size <= limit
        return self.whole

    async def stream(self) -> AsyncIterator[bytes]:
        if self.head:
            yield self.head
        while not self.whole and (chunk := await self._next()):
            yield chunk

    async def _next(self) -> bytes:
        content = self._content
        try:
            if content.is_eof():
                return content.read_nowait(-1)
            if not self._asked_to_go_on:
                await self._go_on()
            async with asyncio.timeout(self._idle_seconds):
                return await content.readany()
        except TimeoutError as error:
            self.fault = ClientFault(408, f"the request's body stood still for {self._idle_seconds:g} s")
            raise self.fault from error
        except (aiohttp.ClientPayloadError, web.RequestPayloadError) as error:
            self.fault = ClientFault(400, "the request's body is not framed as HTTP asks for, or broke off")
            raise self.fault from error

    async def _go_on(self) -> None:
        """Tell a client that waits for leave to send its body that it has it."""
        self._asked_to_go_on = True
        if self._request.headers.get("Expect", "").lower() != "100-continue" or self._request.version < HttpVersion11:
            return
        await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._request.writer.output_size = 0


def check_framing(request: web.BaseRequest) -> None:
    """HTTP/1.0 knows no chunks: servers before us may have read such a message otherwise. Raises ClientFault."""
    if request.version < HttpVersion11 and "Transfer-Encoding" in request.headers:
        raise ClientFault(400, "Transfer-Encoding in an HTTP/1.0 request")


def raw_path_of(request: web.BaseRequest) -> str:
    """Path and query as the client sent them; an absolute-form target is cut down to them. Raises ClientFault for other targets."""
    raw = request.raw_path
    if raw.startswith("/"):
        return raw
    absolute = _ABSOLUTE.match(raw)
    if absolute is None:
        raise ClientFault(400, "the request's target is neither a path nor a URL")
    rest = raw[absolute.end() :]
    return rest if rest.startswith("/") else f"/{rest}"


StatusSeen = Callable[[int], None]


def unseen(_status: int) -> None:
    """Nobody waits for upstream's status."""


async def pass_through(
    request: web.BaseRequest, body: ClientBody, upstream: Upstream, cache_status: str, seen: StatusSeen = unseen
) -> web.StreamResponse:
    """Send the request on and its answer back; `seen` is told upstream's status before the client is.

    Raises UpstreamFault or ClientFault while nothing has been sent downstream.
    """
    data: bytes | AsyncIterator[bytes] | None = None
    headers = header_rules.end_to_end(request.headers, ("expect",))
    if body.whole:
        data = body.head
    elif request.can_read_body or body.head:
        data = body.stream()
    try:
        async with upstream.send(request.method, raw_path_of(request), headers, data) as answer:
            seen(answer.status)
            return await relay(request, answer, header_rules.end_to_end(answer.headers), cache_status)
    except UpstreamFault:
        if body.fault is not None:
            raise body.fault from None
        raise


async def relay(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, headers: CIMultiDict[str], cache_status: str
) -> web.StreamResponse:
    response = Relayed(status=answer.status, reason=answer.reason, headers=headers)
    response.headers.add("Cache-Status", cache_status)
    length = answer.content_length
    try:
        if length is not None and length <= WHOLE_BYTES and request.method != "HEAD":
            whole = b"".join([chunk async for chunk in chunks_of(answer)])
            await response.prepare(request)
            await response.write_eof(whole)
            return response
        await response.prepare(request)
        async for chunk in chunks_of(answer):
            await response.write(chunk)
        await response.write_eof()
    except UpstreamAborted as aborted:
        if not response.prepared:
            raise UpstreamFault(502, str(aborted)) from aborted
        break_off(request, response)
    return response


def break_off(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """End the client's connection without the closing chunk, so that it sees what upstream did."""
    response.force_close()
    if request.transport is not None:
        request.transport.abort()
