"""What is not the cache's business goes to upstream as it came: bypasses, and the requests that change what upstream serves.

Called by the pipeline. Also the sidecar's own answers where there is nothing to pass on.
"""

from aiohttp import web

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar import cache_status
from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.access import GUARDED_PREFIX
from inference_cache_sidecar.adapters import ModelChanges
from inference_cache_sidecar.errors import ClientFault, UpstreamFault, error_response
from inference_cache_sidecar.flights import Flights
from inference_cache_sidecar.identity import UpstreamIdentity
from inference_cache_sidecar.metrics import Metrics
from inference_cache_sidecar.query.model import BypassReason
from inference_cache_sidecar.relay import ClientBody, StatusSeen, pass_through, unseen
from inference_cache_sidecar.upstream import Upstream
from inference_cache_sidecar.websocket import pass_websocket


class Passing:
    def __init__(self, upstream: Upstream, identity: UpstreamIdentity, changes: ModelChanges, flights: Flights, metrics: Metrics) -> None:
        self._upstream = upstream
        self._identity = identity
        self._changes = changes
        self._flights = flights
        self._metrics = metrics

    async def websocket(self, request: web.BaseRequest) -> web.StreamResponse:
        return await pass_websocket(request, self._upstream)

    async def uncacheable(self, request: web.BaseRequest, body: ClientBody, most_bytes: int) -> web.StreamResponse:
        if request.method != "POST":
            return await self.bypass(request, body, BypassReason.METHOD)
        if not self._changes.concern(request.path):
            return await self.bypass(request, body, BypassReason.PATH)
        await body.read(most_bytes)

        def answered(status: int | None) -> None:
            if self._changes.happened(request.path, body.head, status):
                self._flights.part()

        try:
            return await self.bypass(request, body, BypassReason.PATH, seen=answered)
        except UpstreamFault:
            answered(None)
            raise

    async def bypass(
        self,
        request: web.BaseRequest,
        body: ClientBody,
        reason: BypassReason,
        endpoint: Endpoint | None = None,
        *,
        seen: StatusSeen = unseen,
    ) -> web.StreamResponse:
        self._metrics.bypass(endpoint, reason)
        forward = "method" if reason is BypassReason.METHOD else "bypass"
        return await self.through(request, body, cache_status.forwarded(forward, detail=reason.value), seen)

    async def through(self, request: web.BaseRequest, body: ClientBody, status: str, seen: StatusSeen = unseen) -> web.StreamResponse:
        identity = self._identity
        try:
            response = await pass_through(request, body, self._upstream, status, seen)
        except UpstreamFault:
            identity.doubt()
            raise
        if not identity.confirmed and 200 <= response.status < 300 and request.path.startswith(GUARDED_PREFIX):
            # A model server that wants a key says who it is only to a key that it accepted, and until then everything passes here.
            identity.accepted(header_rules.credential_headers(request.headers))
        return response


def nothing_cached() -> web.Response:
    response = error_response(504, "nothing cached answers this request, and it asked for nothing else (only-if-cached)")
    response.headers["Cache-Status"] = f"{cache_status.NAME}; detail=only-if-cached"
    return response


def fault_response(fault: UpstreamFault) -> web.Response:
    response = error_response(fault.status, str(fault))
    response.headers["Cache-Status"] = cache_status.forwarded("miss", status=fault.status)
    return response


def client_fault_response(fault: ClientFault) -> web.Response:
    response = error_response(fault.status, str(fault))
    response.headers["Cache-Status"] = cache_status.UNASKED
    response.force_close()
    return response
