"""The HTTPS server that the API server calls, as kopf wants its admission servers; others keep its TLS context fresh."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import kopf
from aiohttp import web

from inference_cache_operator.certificates.serving import ServedCertificate
from inference_cache_operator.serving import listening
from inference_cache_operator.settings import Address
from inference_cache_operator.webhook.configuration import PATH, REQUIRED_PATH

logger = logging.getLogger(__name__)
_MAX_BYTES: Final = 4 << 20
"""An API server takes objects of at most 3 MiB or so."""
HANDLERS: Final = {PATH: "mutate", REQUIRED_PATH: "mutate-required"}
"""kopf's handler of each path."""


@dataclass(slots=True)
class AdmissionServer:
    """Callable, for `settings.admission.server`. Raises CannotListen there."""

    address: Address
    served: ServedCertificate
    port: int | None = field(default=None)
    """While it listens."""

    async def __call__(self, fn: kopf.WebhookFn) -> AsyncIterator[kopf.WebhookClientConfig]:
        await self.served.loaded.wait()
        app = web.Application(client_max_size=_MAX_BYTES)
        for path, handler in HANDLERS.items():
            app.router.add_post(path, _handler(fn, handler))
        try:
            async with listening(app, self.address, ssl_context=self.served.context) as port:
                self.port = port
                logger.info("webhook: listening", extra={"fields": {"address": f"{self.address.host}:{port}"}})
                # kopf reads on until it ends; what it reads is for configurations that it manages, and this one it does not.
                yield {}
                await asyncio.Event().wait()
        finally:
            self.port = None


def _handler(fn: kopf.WebhookFn, handler: str) -> Any:
    async def serve(request: web.Request) -> web.Response:
        try:
            review = await request.json(loads=json.loads)
            _name_namespace(review["request"])
        except (ValueError, KeyError, TypeError) as error:
            raise web.HTTPBadRequest(text="not an AdmissionReview") from error
        return web.json_response(await fn(review, webhook=kopf.HandlerId(handler)))

    return serve


def _name_namespace(request: dict[str, Any]) -> None:
    """Older API servers fill the pod's namespace in only afterwards."""
    if isinstance(request.get("object"), dict) and request.get("namespace"):
        request["object"].setdefault("metadata", {}).setdefault("namespace", request["namespace"])
