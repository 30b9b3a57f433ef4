"""Pass-through: whatever is not cacheable goes to upstream and back byte for byte, as it runs.

Called by the pipeline for every bypass. Bodies and streams are never held; a client that leaves ends the upstream call.
"""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.errors import ClientFault, UpstreamAborted
from inference_cache_sidecar.upstream import Upstream, chunks_of

WHOLE_BYTES = 256 * 1024
"""Answers of a known length up to this go out in one write."""


class Relayed(web.StreamResponse):
    """A response whose headers are upstream's own: nothing is added that upstream did not say."""

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

    async def read(self, limit: int) -> bool:
        """True if the whole body fits `limit` bytes. Raises ClientFault if it comes too slowly or breaks off."""
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
            async with asyncio.timeout(self._idle_seconds):
                return await content.readany()
        except TimeoutError as error:
            raise ClientFault(408, f"the request's body stood still for {self._idle_seconds:g} s") from error
        except (aiohttp.ClientPayloadError, web.RequestPayloadError) as error:
            raise ClientFault(400, "the request's body broke off") from error


def raw_path_of(request: web.BaseRequest) -> str:
    """Path and query as the client sent them; an absolute-form target is cut down to them."""
    raw = request.raw_path
    return raw if raw.startswith("/") else request.rel_url.raw_path_qs


async def pass_through(request: web.BaseRequest, body: ClientBody, upstream: Upstream, cache_status: str) -> web.StreamResponse:
    """Send the request on and its answer back. Raises UpstreamFault while nothing has been sent downstream."""
    data: bytes | AsyncIterator[bytes] | None = None
    headers = header_rules.end_to_end(request.headers, ("expect",))
    if body.whole:
        data = body.head
    elif request.can_read_body or body.head:
        data = body.stream()
    async with upstream.send(request.method, raw_path_of(request), headers, data) as answer:
        return await relay(request, answer, header_rules.end_to_end(answer.headers), cache_status)


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
    except UpstreamAborted:
        break_off(request, response)
    return response


def break_off(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """End the client's connection without the closing chunk, so that it sees what upstream did."""
    response.force_close()
    if request.transport is not None:
        request.transport.abort()
