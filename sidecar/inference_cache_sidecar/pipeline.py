"""The way of every request: parse, place, look up, join or fly, serve; and pass through whatever must not be cached.

`app` hands `Pipeline.handle` to the server. This is one of the three edges that catch everything: when the cache fails, the
request goes to upstream as if there were none.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, assert_never

from aiohttp import web

from inference_cache_contract.endpoints import PATHS, Endpoint
from inference_cache_contract.spec import Category
from inference_cache_sidecar import cache_control, cache_status
from inference_cache_sidecar.access import Access
from inference_cache_sidecar.adapters import ModelChanges
from inference_cache_sidecar.asking import Ask
from inference_cache_sidecar.errors import ClientFault, UpstreamFault, whereabouts
from inference_cache_sidecar.flights import Flights, Reader, Work
from inference_cache_sidecar.flying import Flying
from inference_cache_sidecar.identity import UpstreamIdentity
from inference_cache_sidecar.listing import LISTED, Listing
from inference_cache_sidecar.lookup import Asked, Lifetimes, Lookup
from inference_cache_sidecar.marks import Trust, marks_of
from inference_cache_sidecar.metrics import Metrics, Result, Stage
from inference_cache_sidecar.outcome import Answered, Failed, Hit, Miss
from inference_cache_sidecar.passing import Passing, client_fault_response, fault_response, nothing_cached
from inference_cache_sidecar.placing import Placer
from inference_cache_sidecar.query.body import is_laborious
from inference_cache_sidecar.query.model import BypassReason
from inference_cache_sidecar.relay import ClientBody, check_framing
from inference_cache_sidecar.render.protocol import Renderer
from inference_cache_sidecar.repeats import Repeats
from inference_cache_sidecar.replay import Replay
from inference_cache_sidecar.served import Served, ServedHit
from inference_cache_sidecar.serving import BrokenOffError, UnservedError, flight_response, hit_response, new_id
from inference_cache_sidecar.upstream import Upstream
from inference_cache_sidecar.websocket import wants_websocket

_log = logging.getLogger(__name__)
_FAILING = frozenset({429, 500, 502, 503, 504})
"""Answers of upstream's that a stale entry may stand in for."""
FLIGHTS: Final = 2
"""That a request may be aboard of, one after the other."""


@dataclass(frozen=True, slots=True)
class PipelineRules:
    """What of the spec the pipeline itself decides by."""

    bypass: BypassReason | None
    """Why everything is passed through; None: it is not."""
    threshold: float
    lifetimes: Lifetimes
    categories: tuple[Category, ...]
    stale_while_revalidate_seconds: float
    stale_if_error_seconds: float
    body_bytes: int
    body_idle_seconds: float


@dataclass(frozen=True, slots=True)
class Parts:
    """The pipeline's collaborators, put together by `rules`."""

    upstream: Upstream
    identity: UpstreamIdentity
    placer: Placer
    repeats: Repeats
    access: Access
    trust: Trust
    lookup: Lookup
    flights: Flights
    flying: Flying
    listing: Listing
    renderers: Mapping[Endpoint, Renderer]
    passing: Passing
    changes: ModelChanges
    served: Served
    metrics: Metrics
    clock: Callable[[], float]


class Pipeline:
    """One for every set of rules: a request ends under those it began under."""

    def __init__(self, parts: Parts, rules: PipelineRules) -> None:
        self._parts = parts
        self.rules = rules

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = ClientBody(request, self.rules.body_idle_seconds)
        try:
            return self._repeated(request, body) or await self._answer(request, body)
        except ClientFault as fault:
            return client_fault_response(fault)
        except UpstreamFault as fault:
            self._parts.metrics.failed()
            return fault_response(fault)
        except Exception as error:
            if request.writer.output_size or not body.whole:
                raise
            _log.error("the cache failed (%s): passing through", whereabouts(error))
            self._parts.metrics.failed_open()
            return await self._parts.passing.through(request, body, cache_status.forwarded("bypass", detail="error"))

    async def _answer(self, request: web.BaseRequest, body: ClientBody) -> web.StreamResponse:
        check_framing(request)
        if wants_websocket(request):
            return await self._parts.passing.websocket(request)
        endpoint = PATHS.get(request.raw_path) if request.method == "POST" else None
        if endpoint is None:
            return await self._parts.passing.uncacheable(request, body, self.rules.body_bytes)
        if self.rules.bypass is not None:
            return await self._parts.passing.bypass(request, body, self.rules.bypass)
        return await self._cacheable(request, body, endpoint)

    def _repeated(self, request: web.BaseRequest, body: ClientBody) -> Replay | None:
        """Only where all requests are looked at alike: not by categories, not by who may mark them."""
        if self.rules.bypass is not None or self.rules.categories or self._parts.trust.networks:
            return None
        started = time.monotonic()
        found = self._parts.repeats.answer(request, body)
        if found is None:
            return None
        replay, entry = found[0], found[1].entry
        self._parts.metrics.request(entry.endpoint, Result.HIT_EXACT, time.monotonic() - started)
        self._parts.metrics.saved(entry.prompt_tokens, entry.completion_tokens, entry.upstream_seconds)
        return replay

    async def _cacheable(self, request: web.BaseRequest, body: ClientBody, endpoint: Endpoint) -> web.StreamResponse:
        directives = cache_control.parse(request.headers.get("Cache-Control"))
        ask = await self._ask(request, body, endpoint, directives)
        if isinstance(ask, BypassReason):
            if directives.only_if_cached:
                return nothing_cached()
            if ask is BypassReason.UPSTREAM_UNCONFIRMED and self.rules.stale_if_error_seconds > 0:
                return await self._in_doubt(request, body, endpoint, directives)
            return await self._parts.passing.bypass(request, body, ask, endpoint)
        return await self._listed(ask, body) or await self._cached(ask, body)

    async def _in_doubt(
        self, request: web.BaseRequest, body: ClientBody, endpoint: Endpoint, directives: cache_control.Directives
    ) -> web.StreamResponse:
        """Upstream has yet to say who it is: its own answer, or, where it gives none, what it said when last known, marked stale."""
        try:
            return await self._parts.passing.bypass(request, body, BypassReason.UPSTREAM_UNCONFIRMED, endpoint)
        except UpstreamFault:
            ask = await self._ask(request, body, endpoint, directives, last_known=True)
            found = Miss() if isinstance(ask, BypassReason) else await self._parts.lookup.exact(ask.asked)
            if isinstance(ask, BypassReason) or isinstance(found, Miss) or not self._parts.access.accepted(ask.caller.credential):
                raise
            if -found.remaining_seconds > self.rules.stale_if_error_seconds:
                raise
            return self._serve(ask, found, stale="stale-if-error")

    async def _listed(self, ask: Ask, body: ClientBody) -> web.StreamResponse | None:
        """None for what is no list of independent items."""
        if ask.endpoint not in LISTED:
            return None
        listing = self._parts.listing
        found = await listing.find(ask, self._parts.identity.root_of(ask.query.model), self._parts.placer.rules)
        if found is None or (found.missing and ask.asked.directives.only_if_cached):
            return None
        result = Result.MISS if found.missing else Result.HIT_EXACT
        self._parts.metrics.request(ask.endpoint, result, time.monotonic() - ask.started)
        answered = await listing.answer(ask, found)
        return answered or await self._parts.passing.through(ask.request, body, cache_status.forwarded("miss", detail="not-divisible"))

    async def _ask(
        self,
        request: web.BaseRequest,
        body: ClientBody,
        endpoint: Endpoint,
        directives: cache_control.Directives,
        *,
        last_known: bool = False,
    ) -> Ask | BypassReason:
        started = time.monotonic()
        if directives.no_store:
            return BypassReason.REQUEST_DIRECTIVE
        if not await body.read(self.rules.body_bytes) or is_laborious(body.head):
            return BypassReason.BODY_TOO_LARGE
        begun = time.monotonic()
        place = self._parts.placer.place(request, endpoint, body.head, last_known=last_known)
        self._parts.metrics.stage(Stage.PARSE, time.monotonic() - begun)
        if isinstance(place, BypassReason):
            return place
        marks = marks_of(request.headers, self._parts.trust.trusts(request.remote), self.rules.categories)
        threshold, lifetimes = self._category_rules(marks.category)
        return Ask(
            request=request,
            body=body.head,
            endpoint=endpoint,
            query=place.query,
            asked=Asked(place.query, place.scope, place.digest, directives, threshold, lifetimes),
            caller=place.caller,
            place=place,
            marks=marks,
            renderer=self._parts.renderers[endpoint],
            doubts=place.doubts,
            started=started,
        )

    def _category_rules(self, category: Category | None) -> tuple[float, Lifetimes]:
        rules = self.rules
        if category is None:
            return rules.threshold, rules.lifetimes
        threshold = rules.threshold if category.threshold is None else category.threshold
        ttl = category.ttl_seconds
        return threshold, rules.lifetimes if ttl is None else Lifetimes(ttl, ttl)

    async def _cached(self, ask: Ask, body: ClientBody) -> web.StreamResponse:
        found = await self._parts.lookup.exact(ask.asked)
        stale: Hit | None = None
        if isinstance(found, Hit):
            if not await self._may_hit(ask):
                found = Miss()
            elif found.remaining_seconds > 0:
                self._parts.repeats.learn(ask, found.entry)
                return self._serve(ask, found)
            elif -found.remaining_seconds <= self.rules.stale_while_revalidate_seconds:
                self._refresh(ask)
                return self._serve(ask, found, stale="stale-while-revalidate")
            elif -found.remaining_seconds <= self.rules.stale_if_error_seconds:
                stale = found
        if ask.asked.directives.only_if_cached:
            return await self._only_if_cached(ask)
        return await self._fly(ask, body, found if isinstance(found, Miss) else Miss(), stale)

    async def _may_hit(self, ask: Ask) -> bool:
        access, credential = self._parts.access, ask.caller.credential
        if access.accepted(credential):
            return True
        begun = time.monotonic()
        confirmed = await access.confirm(credential, ask.request.headers)
        self._parts.metrics.stage(Stage.ACCESS, time.monotonic() - begun)
        return confirmed

    async def _only_if_cached(self, ask: Ask) -> web.StreamResponse:
        if self._parts.flying.policy.serve_similar and await self._may_hit(ask):
            found = await self._parts.lookup.similar(ask.asked)
            if isinstance(found, Hit):
                return self._serve(ask, found)
        return nothing_cached()

    async def _fly(self, ask: Ask, body: ClientBody, refused: Miss, stale: Hit | None) -> web.StreamResponse:
        """By the flight there is, else by a new one; and by another, shared again, if that breaks off before anything was sent."""
        for _ in range(FLIGHTS):
            try:
                return await self._aboard(ask, refused, stale)
            except BrokenOffError:
                continue
            except UnservedError:
                break
        return await self._parts.passing.through(ask.request, body, cache_status.forwarded("miss", detail="not-shared"))

    async def _aboard(self, ask: Ask, refused: Miss, stale: Hit | None) -> web.StreamResponse:
        flights = self._parts.flights
        reader, leader = await self._join(ask), False
        if reader is None:
            shared = not ask.asked.directives.no_cache
            flight = flights.start(ask.asked.digest, ask.query, ask.caller.credential, self._work(ask, refused), shared=shared)
            reader, leader = flights.join(flight), True
        try:
            return await self._land(ask, reader, leader, stale)
        finally:
            flights.leave(reader)

    def _work(self, ask: Ask, refused: Miss) -> Work:
        return lambda flight: self._parts.flying.fly(flight, ask, refused)

    async def _join(self, ask: Ask) -> Reader | None:
        """A place in an equal flight, if there is one and this caller may share it."""
        if ask.asked.directives.no_cache:
            return None
        flight = self._parts.flights.running(ask.asked.digest)
        if flight is None or self._parts.lookup.differing(ask.query.prompt, flight.query.prompt) is not None:
            return None
        reader = self._parts.flights.join(flight)
        allowed = False
        try:
            allowed = await self._may_hit(ask)
        finally:
            if not allowed:
                self._parts.flights.leave(reader)
        return reader if allowed else None

    async def _land(self, ask: Ask, reader: Reader, leader: bool, stale: Hit | None) -> web.StreamResponse:
        outcome = await reader.flight.decided()
        leader = leader and not reader.flight.followed
        match outcome:
            case Hit(kind="exact") if not leader:
                # It came into the store after this caller had looked.
                found = await self._parts.lookup.exact(ask.asked)
                if isinstance(found, Miss) or found.remaining_seconds <= 0:
                    raise UnservedError("the leader's hit is not one by this caller's rules")
                return self._serve(ask, found)
            case Hit():
                if not leader and not self._parts.lookup.allows(ask.asked, outcome):
                    raise UnservedError("the leader's hit is not one by this caller's rules")
                return self._serve(ask, outcome)
            case Failed(fault):
                if stale is not None:
                    return self._serve(ask, stale, stale="stale-if-error")
                raise fault
            case Answered(status=status):
                if stale is not None and status in _FAILING:
                    return self._serve(ask, stale, stale="stale-if-error")
                if status != 200 and reader.flight.credential != ask.caller.credential:
                    raise UnservedError("the leader's refusal may be the leader's own")
                self._parts.metrics.request(ask.endpoint, Result.MISS if leader else Result.COALESCED, time.monotonic() - ask.started)
                return await flight_response(ask, reader, outcome, leader=leader)
            case _:
                assert_never(outcome)

    def _refresh(self, ask: Ask) -> None:
        """Fetch a fresh answer with nobody waiting; once, however many ask."""
        if self._parts.flights.running(ask.asked.digest) is None:
            # A refresh wants upstream's own answer, not a similar entry.
            asked = replace(ask.asked, directives=cache_control.Directives(no_cache=True))
            work = self._work(replace(ask, asked=asked), Miss())
            self._parts.flights.start(ask.asked.digest, ask.query, ask.caller.credential, work, detached=True)

    def _serve(self, ask: Ask, hit: Hit, *, stale: str | None = None) -> web.StreamResponse:
        answer_id = new_id(ask) if hit.entry.answer_id else ""
        response = hit_response(ask, hit, hit.entry.age(self._parts.clock()), answer_id, stale=stale)
        metrics = self._parts.metrics
        result = Result.HIT_STALE if stale else Result.HIT_EXACT if hit.kind == "exact" else Result.HIT_SEMANTIC
        metrics.request(ask.endpoint, result, time.monotonic() - ask.started)
        metrics.saved(hit.entry.prompt_tokens, hit.entry.completion_tokens, hit.entry.upstream_seconds)
        if hit.kind == "semantic":
            self._parts.served.add(answer_id, ServedHit(ask.asked.digest, hit.entry.digest))
        return response
