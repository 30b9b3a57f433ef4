"""The admin port's application: `build_admin(services, token)`. `app` runs it on a listener of its own."""

import logging
from dataclasses import fields
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import choose_encoder

from inference_cache_contract import endpoints
from inference_cache_contract.spec_fields import camel
from inference_cache_sidecar.admin import bodies, token
from inference_cache_sidecar.admin.services import AdminServices, Status
from inference_cache_sidecar.errors import ClientFault, error_response
from inference_cache_sidecar.exposition import VERSION
from inference_cache_sidecar.store.protocol import StoreStats

MAX_BODY_BYTES: Final = 16 * 1024
_KINDS: Final = {401: "authentication_error", 403: "permission_error"}
_log = logging.getLogger(__name__)


def build_admin(services: AdminServices, admin_token: str | None) -> web.Application:
    """Reads are open to whoever reaches the port; writes need the token, and are refused to all if it is None."""
    admin = _Admin(services, admin_token)
    app = web.Application(middlewares=[_errors_as_json], client_max_size=MAX_BODY_BYTES)
    app.router.add_get(endpoints.LIVEZ, admin.livez)
    app.router.add_get(endpoints.READYZ, admin.readyz)
    app.router.add_get(endpoints.METRICS, admin.metrics)
    app.router.add_get(endpoints.STATUS, admin.status)
    app.router.add_post(endpoints.FLUSH, admin.flush)
    app.router.add_post(endpoints.FEEDBACK, admin.feedback)
    return app


class _Admin:
    def __init__(self, services: AdminServices, admin_token: str | None) -> None:
        self._services = services
        self._token = admin_token

    async def livez(self, _request: web.Request) -> web.Response:
        """Answered by the event loop itself: that it is answered is the answer."""
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        reasons = list(self._services.not_ready())
        return _json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._services.registry), headers={"Content-Type": content_type})

    async def status(self, _request: web.Request) -> web.Response:
        status = self._services.status()
        shown = {"revision": status.revision.hex(), "epochs": dict(status.epochs), "store": _fields(status.store)}
        return _json({"version": VERSION} | _fields(status) | shown)

    async def flush(self, request: web.Request) -> web.Response:
        token.require(request, self._token)
        asked = bodies.flush_request(await request.read())
        result = await self._services.flush(asked)
        _log.info(
            "flush of %s %r by %s: %d entries, epoch %s%s",
            *(asked.target, asked.value, request.remote, result.count, result.epoch, " (dry run)" if asked.dry_run else ""),
        )
        answer: dict[str, Any] = {"wouldFlush" if asked.dry_run else "flushed": result.count}
        return _json(answer if result.epoch is None else answer | {"epoch": result.epoch})

    async def feedback(self, request: web.Request) -> web.Response:
        token.require(request, self._token)
        asked = bodies.feedback_request(await request.read())
        result = await self._services.feedback(asked)
        if result is None:
            raise ClientFault(404, "no such answer is remembered")
        return _json({"verdict": asked.verdict, "evicted": result.evicted})


def _fields(told: Status | StoreStats) -> dict[str, object]:
    return {camel(field.name): getattr(told, field.name) for field in fields(told)}


def _json(document: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Also aiohttp's own: unknown path, wrong method, a body over the limit."""
    try:
        return await handler(request)
    except ClientFault as fault:
        response = error_response(fault.status, str(fault), _KINDS.get(fault.status, "invalid_request_error"))
        if fault.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response
    except web.HTTPException as error:
        response = error_response(error.status, error.reason, "invalid_request_error")
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
