"""What requests go through at present: a pipeline that is replaced as a whole when the spec changes, or when the sidecar drains.

Made by `app`, which hands `handle` to the listeners; the hot configuration calls `use`, the drain `drain`.
"""

from collections.abc import Awaitable

from aiohttp import web

from inference_cache_contract.spec import Spec
from inference_cache_sidecar.access import Tenancy
from inference_cache_sidecar.composition import Composition
from inference_cache_sidecar.pipeline import Parts, Pipeline
from inference_cache_sidecar.query.model import BypassReason
from inference_cache_sidecar.rules import parts_of, pipeline_rules
from inference_cache_sidecar.settings import Wanted


class Live:
    """`key` turns credentials into tenants until `use_key`."""

    def __init__(self, made: Composition, wanted: Wanted, key: bytes) -> None:
        self._made = made
        self._key = key
        self._wanted = wanted
        self.draining = False
        self._put_together()

    @property
    def spec(self) -> Spec:
        """In force."""
        return self._wanted.spec

    @property
    def drain_seconds(self) -> float:
        return self._wanted.drain_seconds

    @property
    def active(self) -> bool:
        """Something may be served from the cache."""
        return self.bypass is None

    @property
    def bypass(self) -> BypassReason | None:
        if self.draining:
            return BypassReason.DRAINING
        if self._made.shared is not None and self._wanted.must_not_share:
            return BypassReason.UNENCRYPTED
        return BypassReason.MODE if self.spec.mode == "Bypass" else None

    def handle(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        return self._drained(request) if self.draining else self._pipeline.handle(request)

    def use(self, wanted: Wanted) -> None:
        """For requests that begin from now on."""
        self._wanted = wanted
        self._made.use(wanted.spec)
        self._put_together()

    def use_key(self, key: bytes) -> None:
        """From now on callers are other tenants than before."""
        self._key = key
        self._tenancy.use(key)
        self.parts.placer.forget()

    def drain(self, draining: bool = True) -> None:
        """Nothing is served from the cache or stored any more, and every connection ends with its next answer."""
        self.draining = draining
        self._put_together()

    def _put_together(self) -> None:
        tenancy = self.spec.tenancy
        self._tenancy = Tenancy(tenancy.source, self._key, tenancy.claim)
        self.parts: Parts = parts_of(self._made, self.spec, self._tenancy)
        bypass = self.bypass
        self._pipeline = Pipeline(self.parts, pipeline_rules(self.spec, bypass))
        if bypass is not None:
            self._made.flights.keep_nothing()

    async def _drained(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._pipeline.handle(request)
        if not response.prepared:
            response.force_close()
        return response
