"""WebSockets (`/v1/realtime`) pass through: two pumps, one each way, that end together.

Called by the pipeline for upgrade requests; messages are relayed whole, never looked at.
"""

import asyncio

import aiohttp
from aiohttp import web

from inference_cache_sidecar import cache_status
from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.errors import ClientFault, UpstreamFault
from inference_cache_sidecar.relay import raw_path_of
from inference_cache_sidecar.upstream import Upstream

_HANDSHAKE = ("sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol", "host")
_Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


def wants_websocket(request: web.BaseRequest) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


async def pass_websocket(request: web.BaseRequest, upstream: Upstream) -> web.StreamResponse:
    """Raises ClientFault for a broken handshake, UpstreamFault if upstream refuses it."""
    if not web.WebSocketResponse().can_prepare(request).ok:
        raise ClientFault(400, "the WebSocket handshake is not as RFC 6455 asks for")
    protocols = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()]
    headers = header_rules.end_to_end(request.headers, _HANDSHAKE)
    try:
        theirs = await upstream.session.ws_connect(
            upstream.url(raw_path_of(request)), headers=headers, protocols=protocols, max_msg_size=0, autoclose=True
        )
    except aiohttp.WSServerHandshakeError as error:
        raise UpstreamFault(error.status if error.status >= 400 else 502, "the model server refused the WebSocket") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise UpstreamFault(502, "the model server does not accept connections") from error
    async with theirs:
        ours = web.WebSocketResponse(protocols=[theirs.protocol] if theirs.protocol else [], max_msg_size=0, compress=False)
        ours.headers["Cache-Status"] = cache_status.forwarded("bypass", detail="websocket")
        await ours.prepare(request)
        await _pump_both(ours, theirs)
    return ours


async def _pump_both(ours: web.WebSocketResponse, theirs: aiohttp.ClientWebSocketResponse) -> None:
    pumps = {asyncio.create_task(_pump(ours, theirs)), asyncio.create_task(_pump(theirs, ours))}
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        await theirs.close()
        await ours.close()


async def _pump(source: _Socket, sink: _Socket) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)
    await sink.close(code=source.close_code or aiohttp.WSCloseCode.OK)
