"""The feature cache's own listener: `POST /get-online-features` read through, writes watched, everything else passed on untouched.

`app` hands `FeatureServer.handle` to a `ProxyServer`. An edge: when the cache fails, the request goes to the feature server as if there
were none.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

import orjson
from aiohttp import web

from inference_cache_sidecar import cache_control, cache_status
from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.errors import ClientFault, StoreError, UpstreamFault, whereabouts
from inference_cache_sidecar.features.asking import Asking, UpstreamAnswer
from inference_cache_sidecar.features.cache import FeatureCache
from inference_cache_sidecar.features.outcome import Merged, Passed, Unplaced
from inference_cache_sidecar.features.request import FeatureRequest, Value, parse
from inference_cache_sidecar.features.writes import entities_of, may_change
from inference_cache_sidecar.relay import ClientBody, Relayed, check_framing, pass_through
from inference_cache_sidecar.tasks import ended
from inference_cache_sidecar.upstream import Upstream
from inference_cache_sidecar.websocket import pass_websocket, wants_websocket

READ: Final = "/get-online-features"
_FAULTS: Final = {502: "the feature server cannot be reached", 504: "the feature server did not answer in time"}
_log = logging.getLogger(__name__)

FAREWELL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class FeatureLimits:
    body_bytes: int
    """A longer request passes through."""
    answer_bytes: int
    """A longer answer passes through."""
    body_idle_seconds: float


def always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class FeatureRules:
    tenant_of: Callable[[Mapping[str, str]], bytes]
    """Tells apart, by their headers, callers that must not share: by the whole credential, since a hit skips upstream's check of it."""
    limits: FeatureLimits
    join_keys: frozenset[str] = frozenset()
    """All there are; empty: not known."""
    active: Callable[[], bool] = always
    """False while everything is to pass through."""


class FeatureServer:
    def __init__(self, cache: FeatureCache, upstream: Upstream, rules: FeatureRules) -> None:
        self._cache = cache
        self._upstream = upstream
        self._rules = rules
        self._writes: set[asyncio.Task[UpstreamAnswer]] = set()

    async def close(self) -> None:
        """Writes that were passed on are given time; what one that takes longer concerns is dropped all the same."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=FAREWELL_SECONDS)
        await ended(self._writes)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = ClientBody(request, self._rules.limits.body_idle_seconds)
        try:
            return await self._answer(request, body)
        except ClientFault as fault:
            response = _told(fault.status, str(fault), cache_status.UNASKED)
            response.force_close()
            return response
        except UpstreamFault as fault:
            return _told(fault.status, _FAULTS.get(fault.status, str(fault)), cache_status.forwarded("miss", status=fault.status))
        except Exception as error:
            if request.writer.output_size or not body.whole:
                raise
            _log.error("the feature cache failed (%s): passing through", whereabouts(error))
            self._cache.counts.failed_open += 1
            return await self._pass(request, body, "error")

    async def _answer(self, request: web.BaseRequest, body: ClientBody) -> web.StreamResponse:
        check_framing(request)
        if wants_websocket(request):
            return await pass_websocket(request, self._upstream)
        if request.method != "POST":
            return await pass_through(request, body, self._upstream, cache_status.forwarded("method"))
        if may_change(request.path):
            return await self._written(request, body)
        return await (self._read(request, body) if request.raw_path == READ else self._pass(request, body, "path"))

    async def _read(self, request: web.BaseRequest, body: ClientBody) -> web.StreamResponse:
        directives = cache_control.parse(request.headers.get("Cache-Control"))
        asked = None if directives.no_store else await self._asked(request, body)
        if asked is None:
            self._cache.counts.bypassed += 1
            return await self._pass(request, body, "not-cacheable")
        asking = Asking(self._upstream, request, self._rules.limits.answer_bytes)
        fresh = directives.no_cache or directives.max_age is not None or directives.min_fresh is not None
        outcome = await self._cache.answer(asked, self._rules.tenant_of(request.headers), asking.ask, fresh=fresh)
        match outcome:
            case Merged():
                return _merged(outcome)
            case Passed():
                answer = asking.answers.get(asked.body)
                if answer is None:
                    return await self._pass(request, body, "answer-too-large")
                return await _as_it_is(request, answer, _missed(answer, outcome))
            case Unplaced(reason=reason):
                return await self._pass(request, body, reason)
            case _:
                assert_never(outcome)

    async def _asked(self, request: web.BaseRequest, body: ClientBody) -> FeatureRequest | None:
        if not self._rules.active() or request.content_type != "application/json" or "Content-Encoding" in request.headers:
            return None
        return parse(body.head) if await body.read(self._rules.limits.body_bytes) else None

    async def _written(self, request: web.BaseRequest, body: ClientBody) -> web.StreamResponse:
        """Passed on, and what it changed is dropped before the client is told; also if the client does not wait for that."""
        limits = self._rules.limits
        known = await body.read(limits.body_bytes)
        entities = entities_of(request.path, body.head, self._rules.join_keys) if known else None
        writing = asyncio.create_task(self._write(request, body, entities))
        self._writes.add(writing)
        writing.add_done_callback(self._ended)
        answer = await asyncio.shield(writing)
        return await _as_it_is(request, answer, cache_status.forwarded("bypass", detail="write"))

    def _ended(self, writing: asyncio.Task[UpstreamAnswer]) -> None:
        self._writes.discard(writing)
        if not writing.cancelled():
            # Whoever asked may have gone: nobody need look at it.
            writing.exception()

    async def _write(self, request: web.BaseRequest, body: ClientBody, entities: list[tuple[str, Value]] | None) -> UpstreamAnswer:
        refused = False
        try:
            asking = Asking(self._upstream, request, self._rules.limits.answer_bytes)
            answer = await asking.answer(body.head if body.whole else body.stream())
            if answer is None:
                raise UpstreamFault(502, "the feature server's answer to a write is too long")
            refused = 400 <= answer.status < 500
            return answer
        finally:
            if not refused:
                await self._drop(entities)

    async def _drop(self, entities: list[tuple[str, Value]] | None) -> None:
        try:
            await (self._cache.drop_all() if entities is None else self._cache.drop_entities(entities))
        except StoreError as error:
            self._cache.counts.store_failures += 1
            _log.warning("other replicas could not be told of a write to the feature server: %s", error)

    async def _pass(self, request: web.BaseRequest, body: ClientBody, detail: str) -> web.StreamResponse:
        return await pass_through(request, body, self._upstream, cache_status.forwarded("bypass", detail=detail))


def _merged(outcome: Merged) -> web.Response:
    detail = f"cells={outcome.found}/{outcome.cells}"
    hit = f'{cache_status.NAME}; hit; detail="{detail}"'
    status = hit if outcome.whole else cache_status.forwarded("partial", status=200, stored=outcome.stored, detail=detail)
    headers = {"Cache-Status": status, "Cache-Control": header_rules.DOWNSTREAM_CACHE_CONTROL}
    return web.Response(body=outcome.body, content_type="application/json", headers=headers)


def _missed(answer: UpstreamAnswer, outcome: Passed) -> str:
    return cache_status.forwarded("miss", status=answer.status, stored=outcome.stored, detail=f"cells=0/{outcome.cells}")


async def _as_it_is(request: web.BaseRequest, answer: UpstreamAnswer, status: str) -> web.StreamResponse:
    response = Relayed(status=answer.status, headers=answer.headers)
    response.headers.add("Cache-Status", status)
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write_eof(answer.body)
    return response


def _told(status: int, message: str, cached: str) -> web.Response:
    """In the form of the feature server's own errors."""
    return web.Response(
        status=status, body=orjson.dumps({"detail": message}), content_type="application/json", headers={"Cache-Status": cached}
    )
