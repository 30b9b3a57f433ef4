"""Ways in which the stand-in misbehaves, one request at a time (header `x-standin-fault`) or for all. `server` calls `broken`."""

import asyncio
from enum import Enum
from typing import Final

from aiohttp import web

from inference_cache_toolkit.standin.prepared import Prepared, RequestError

HEADER: Final = "x-standin-fault"

HANG_SECONDS: Final = 3600.0
SLOW_SECONDS: Final = 2.0


class Fault(Enum):
    """What goes wrong; the value is the word in the header."""

    STATUS_429 = "status-429"
    STATUS_500 = "status-500"
    STATUS_503 = "status-503"
    HANG = "hang"
    """The request is read, nothing ever comes."""
    SLOW_FIRST_BYTE = "slow-first-byte"
    """Right, after two seconds of silence."""
    RESET = "reset"
    """The connection is cut before an answer."""
    RESET_MID_STREAM = "reset-mid-stream"
    """The connection is cut in the middle of the body, streamed or plain."""
    HANG_MID_STREAM = "hang-mid-stream"
    GARBAGE_SSE = "garbage-sse"
    """Status 200 and an event stream (or a body) that is not JSON."""
    ERROR_OBJECT = "error-object"
    """Status 200 with an error object as the body."""
    ERROR_MID_STREAM = "error-mid-stream"
    """An error object as an event, then `[DONE]`: what vLLM does when generation fails late."""
    NO_DONE = "no-done"
    """A stream that ends without its closing event."""
    EMPTY_CHOICES = "empty-choices"


class ConnectionCutError(Exception):
    """The connection is to be cut; the server does it at its edge."""


JSON: Final = "application/json"
SSE: Final = "text/event-stream"
ERROR: Final = RequestError(500, "InternalServerError", "the stand-in was told to fail").body()


async def broken(fault: Fault, request: web.BaseRequest, prepared: Prepared, *, stream: bool) -> web.StreamResponse | None:
    """The answer of a stand-in that has this fault; None if all that was wrong is that it came late."""
    if fault.value.startswith("status-"):
        return _refusal(int(fault.value.removeprefix("status-")))
    if fault is Fault.HANG:
        await asyncio.sleep(HANG_SECONDS)
    if fault in {Fault.HANG, Fault.RESET}:
        raise ConnectionCutError
    if fault is Fault.SLOW_FIRST_BYTE:
        await asyncio.sleep(SLOW_SECONDS)
        return None
    if fault is Fault.ERROR_OBJECT:
        return web.Response(body=ERROR, content_type=JSON)
    return await (_broken_stream if stream else _broken_body)(fault, request, prepared)


def _refusal(status: int) -> web.Response:
    kind = "RateLimitError" if status == 429 else "InternalServerError"
    body = RequestError(status, kind, f"the stand-in was told to answer {status}").body()
    return web.Response(status=status, body=body, content_type=JSON, headers={"Retry-After": "1"} if status == 429 else None)


async def _broken_body(fault: Fault, request: web.BaseRequest, prepared: Prepared) -> web.StreamResponse:
    body = prepared.body("standin-fault")
    if fault is Fault.GARBAGE_SSE:
        body = b'{"id": not json at all'
    if fault is Fault.EMPTY_CHOICES:
        body = b'{"id":"chatcmpl-empty","object":"chat.completion","created":1,"model":"tiny","choices":[]}'
    if fault not in {Fault.RESET_MID_STREAM, Fault.HANG_MID_STREAM}:
        return web.Response(body=body, content_type=JSON)
    response = web.StreamResponse(headers={"Content-Type": JSON, "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if fault is Fault.HANG_MID_STREAM:
        await asyncio.sleep(HANG_SECONDS)
    raise ConnectionCutError


async def _broken_stream(fault: Fault, request: web.BaseRequest, prepared: Prepared) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": f"{SSE}; charset=utf-8"})
    await response.prepare(request)
    for event in _faulty_events(fault, prepared.stream("standin-fault")):
        await response.write(event)
    if fault is Fault.HANG_MID_STREAM:
        await asyncio.sleep(HANG_SECONDS)
    if fault in {Fault.RESET_MID_STREAM, Fault.HANG_MID_STREAM}:
        raise ConnectionCutError
    await response.write_eof()
    return response


def _faulty_events(fault: Fault, events: list[bytes]) -> list[bytes]:
    half = events[: max(1, len(events) // 2)]
    match fault:
        case Fault.RESET_MID_STREAM | Fault.HANG_MID_STREAM:
            return half
        case Fault.GARBAGE_SSE:
            return [*half, b"data: {not json\n\n", b"\xff\xfe\x00 no event\n\n", *events[-1:]]
        case Fault.ERROR_MID_STREAM:
            return [*half, b"data: " + ERROR + b"\n\n", *events[-1:]]
        case Fault.NO_DONE:
            return events[:-1]
        case Fault.EMPTY_CHOICES:
            return [
                b'data: {"id":"chatcmpl-empty","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[]}\n\n',
                events[-1],
            ]
        case _:
            return events
