"""The stand-in's server: one low-level aiohttp handler. The demo and the benchmarks start it by `command`, tests by `serving`."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

from inference_cache_toolkit.standin import openai_form, pooling, surface, typed_form
from inference_cache_toolkit.standin.answers import Writer
from inference_cache_toolkit.standin.faults import HEADER, JSON, SSE, ConnectionCutError, Fault, broken
from inference_cache_toolkit.standin.prepared import Prepared, RequestError, parsed
from inference_cache_toolkit.standin.state import SEEN_BODY_BYTES, Pace, Seen, Standin

FORMS: Final[dict[str, Callable[[Mapping[str, Any], Writer], Prepared]]] = {
    "/v1/chat/completions": openai_form.chat,
    "/v1/completions": openai_form.completions,
    "/v1/responses": typed_form.responses,
    "/v1/messages": typed_form.messages,
    "/v1/embeddings": pooling.embeddings,
    "/rerank": pooling.rerank,
    "/v1/rerank": pooling.rerank,
    "/v2/rerank": pooling.rerank,
    "/score": pooling.score,
    "/v1/score": pooling.score,
    "/classify": pooling.classify,
    "/tokenize": pooling.tokenize,
}

GUARDED: Final = "/v1"
"""vLLM asks for its API key on these paths only."""
READY_ANSWERS: Final = 4096
READY_BODY_BYTES: Final = 1 << 14


@asynccontextmanager
async def serving(standin: Standin, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve `standin` while the context is open; gives its base URL. Port 0 takes a free one."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await _handle(standin, request)

    server = web.Server(handle, request_factory=_unlimited, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _unlimited(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    """Requests without a limit on their body, as vLLM has none."""
    return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=0)


async def _handle(standin: Standin, request: web.BaseRequest) -> web.StreamResponse:
    path = request.path
    if path == "/standin/calls":
        return surface.counters(standin, request.method)
    standin.calls[path] += 1
    try:
        body = await request.read()
        standin.seen.append(Seen(request.method, request.raw_path, request.headers, body[:SEEN_BODY_BYTES], len(body)))
        return await _answer(standin, request, path, body)
    except RequestError as error:
        return web.Response(status=error.status, body=error.body(), content_type=JSON)
    except ConnectionCutError:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)
    except (asyncio.CancelledError, ConnectionResetError):
        standin.aborted += 1
        standin.hung_up.set()
        raise


async def _answer(standin: Standin, request: web.BaseRequest, path: str, body: bytes) -> web.StreamResponse:
    if standin.api_key is not None and path.startswith(GUARDED) and request.headers.get("Authorization") != f"Bearer {standin.api_key}":
        return web.json_response({"error": "Unauthorized"}, status=401)
    if request.method == "POST" and path in FORMS:
        return await _infer(standin, request, path, body)
    if path == "/v1/realtime":
        return await surface.echo(request)
    return surface.respond(standin, request.method, path, body)


async def _infer(standin: Standin, request: web.BaseRequest, path: str, body: bytes) -> web.StreamResponse:
    prepared, stream = _prepare(standin, path, body)
    named = request.headers.get(HEADER)
    fault = Fault(named) if named else standin.fault
    if fault is not None:
        early = await broken(fault, request, prepared, stream=stream)
        if early is not None:
            return early
    asked_id = request.headers.get("X-Request-Id") if prepared.takes_request_id else None
    answer_id = prepared.id_prefix + (asked_id or secrets.token_hex(8))
    if stream:
        return await _send_stream(standin.pace, request, prepared.stream(answer_id))
    if delay := standin.pace.first_token + standin.pace.per_token * prepared.tokens:
        await asyncio.sleep(delay)
    return web.Response(body=prepared.body(answer_id), content_type=JSON, headers={"Vary": "Origin"})


def _prepare(standin: Standin, path: str, body: bytes) -> tuple[Prepared, bool]:
    """The answer to these bytes, and whether it is to be streamed; made once."""
    known = standin.ready.get((path, body))
    if known is not None:
        return known
    request = parsed(body)
    model = request.get("model")
    if model is not None and not standin.serves(str(model)):
        valid = ", ".join(card.name for card in standin.cards())
        raise RequestError(404, "NotFoundError", f"The model `{model}` does not exist. Valid aliases: {valid}.", "model")
    prepared = FORMS[path](request, standin.writer_of(model))
    answer = prepared, bool(request.get("stream")) and bool(prepared.events)
    if len(standin.ready) >= READY_ANSWERS:
        standin.ready.clear()
    if len(body) <= READY_BODY_BYTES:
        standin.ready[path, body] = answer
    return answer


async def _send_stream(pace: Pace, request: web.BaseRequest, events: list[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": f"{SSE}; charset=utf-8"})
    await response.prepare(request)
    if not pace.first_token and not pace.per_token:
        events = [b"".join(events)]
    await asyncio.sleep(pace.first_token)
    for event in events:
        await response.write(event)
        await asyncio.sleep(pace.per_token)
    await response.write_eof()
    return response
