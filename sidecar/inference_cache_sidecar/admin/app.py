"""The admin port's application: `build_admin(services, token)`. `app` runs it on a listener of its own."""

from typing import Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import choose_encoder

from inference_cache_contract import endpoints
from inference_cache_sidecar.admin import answers, bodies, token
from inference_cache_sidecar.admin.services import AdminServices
from inference_cache_sidecar.errors import ClientFault, StoreError, error_response

MAX_BODY_BYTES: Final = 16 * 1024
_KINDS: Final = {401: "authentication_error", 403: "permission_error"}


def build_admin(services: AdminServices, admin_token: str | None, drain_token: str | None = None) -> web.Application:
    """Reads are open to whoever reaches the port; writes need the token, and are refused to all if it is None. The drain has a token of
    its own, in its path: kubelet's hooks send no headers that are secret."""
    admin = _Admin(services, admin_token, drain_token)
    app = web.Application(middlewares=[_errors_as_json], client_max_size=MAX_BODY_BYTES)
    app.router.add_get(endpoints.LIVEZ, admin.livez)
    app.router.add_get(endpoints.READYZ, admin.readyz)
    app.router.add_get(endpoints.METRICS, admin.metrics)
    app.router.add_get(endpoints.STATUS, admin.status)
    app.router.add_post(endpoints.FLUSH, admin.flush)
    app.router.add_post(endpoints.FEEDBACK, admin.feedback)
    if services.drain is not None and drain_token is not None:
        app.router.add_get(f"{endpoints.DRAIN}/{{token}}", admin.drain, allow_head=False)
    return app


class _Admin:
    def __init__(self, services: AdminServices, admin_token: str | None, drain_token: str | None) -> None:
        self._services = services
        self._token = admin_token
        self._drain_token = drain_token

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
        return _json(answers.status_document(self._services.status()))

    async def drain(self, request: web.Request) -> web.Response:
        """Answered when the pod may end."""
        token.require_in_path(request.match_info["token"], self._drain_token)
        if self._services.drain is None:
            raise ClientFault(404, "there is nothing to drain")
        drained = await self._services.drain()
        return _json({"inFlight": drained.in_flight, "seconds": round(drained.seconds, 3)})

    async def flush(self, request: web.Request) -> web.Response:
        token.require(request, self._token)
        asked = bodies.flush_request(await request.read())
        result = await self._services.flush(asked, str(request.remote))
        status, document = answers.flush_answer(asked, result)
        return _json(document, status)

    async def feedback(self, request: web.Request) -> web.Response:
        token.require(request, self._token)
        asked = bodies.feedback_request(await request.read())
        result = await self._services.feedback(asked)
        if result is None:
            raise ClientFault(404, "no such answer is remembered")
        return _json({"verdict": asked.verdict, "evicted": result.evicted})


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
    except StoreError as error:
        status, document = answers.store_failed(error)
        return _json(document, status)
    except web.HTTPException as error:
        response = error_response(error.status, error.reason, "invalid_request_error")
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
