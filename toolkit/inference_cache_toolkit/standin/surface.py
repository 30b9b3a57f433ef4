"""What the stand-in answers besides inference: health, version, model cards, metrics, adapters, a WebSocket. Called by `server`."""

import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from aiohttp import WSMsgType, web

from inference_cache_sidecar.adapters import WEIGHT_PATHS
from inference_cache_toolkit.standin.prepared import parsed
from inference_cache_toolkit.standin.state import Card, Standin


def respond(standin: Standin, method: str, path: str, body: bytes) -> web.Response:
    answer = _ANSWERS.get((method, path))
    return answer(standin, body) if answer else web.json_response({"detail": "Not Found"}, status=404)


def counters(standin: Standin, method: str) -> web.Response:
    """The stand-in's own counters, for those who run it in another process; DELETE sets them back."""
    if method == "DELETE":
        standin.calls.clear()
        standin.aborted = 0
    return web.json_response({"calls": dict(standin.calls), "total": standin.calls.total(), "aborted": standin.aborted})


async def echo(request: web.BaseRequest) -> web.WebSocketResponse:
    """A WebSocket that says back what it hears."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


def _empty(_standin: Standin, _body: bytes) -> web.Response:
    return web.Response()


def _version(standin: Standin, _body: bytes) -> web.Response:
    return web.json_response({"version": standin.version})


def _models(standin: Standin, _body: bytes) -> web.Response:
    return web.json_response({"object": "list", "data": [_card(card) for card in standin.cards()]})


def _card(card: Card) -> dict[str, Any]:
    """As vLLM shows it: the permission's id and the times differ at every call."""
    now = int(time.time())
    permission = {"id": f"modelperm-{secrets.token_hex(8)}", "object": "model_permission", "created": now, "allow_sampling": True}
    head = {"id": card.name, "object": "model", "created": now, "owned_by": "vllm", "root": card.root, "parent": card.parent}
    return {**head, "max_model_len": 2048, "permission": [permission]}


def _metrics(standin: Standin, _body: bytes) -> web.Response:
    text = f"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {standin.started!r}\n"
    return web.Response(text=text, headers={"Content-Type": "text/plain; version=1.0.0; charset=utf-8"})


def _load_adapter(standin: Standin, body: bytes) -> web.Response:
    asked = parsed(body)
    standin.load_adapter(str(asked["lora_name"]), str(asked["lora_path"]))
    return web.Response(text=f"Success: LoRA adapter '{asked['lora_name']}' added successfully.")


def _unload_adapter(standin: Standin, body: bytes) -> web.Response:
    asked = parsed(body)
    standin.unload_adapter(str(asked["lora_name"]))
    return web.Response(text=f"Success: LoRA adapter '{asked['lora_name']}' removed successfully.")


def _update_weights(standin: Standin, _body: bytes) -> web.Response:
    """vLLM has these paths in development mode only."""
    if not standin.development:
        return web.json_response({"detail": "Not Found"}, status=404)
    return web.json_response({"message": "Weights updated"})


_ANSWERS: Final[dict[tuple[str, str], Callable[[Standin, bytes], web.Response]]] = {
    ("GET", "/health"): _empty,
    ("GET", "/ping"): _empty,
    ("GET", "/version"): _version,
    ("GET", "/v1/models"): _models,
    ("GET", "/metrics"): _metrics,
    ("POST", "/v1/load_lora_adapter"): _load_adapter,
    ("POST", "/v1/unload_lora_adapter"): _unload_adapter,
    **{("POST", path): _update_weights for path in WEIGHT_PATHS},
}
