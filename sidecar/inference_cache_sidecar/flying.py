"""What a flight does: look for a similar answer, else ask upstream, or follow a replica that does; hand on and keep what comes.

The pipeline starts it; `serving` turns its outcome into each reader's response.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Final, TypeVar, assert_never

import aiohttp
from multidict import CIMultiDict

from inference_cache_contract.entry import Entry
from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.access import Access
from inference_cache_sidecar.asking import Ask
from inference_cache_sidecar.coalescing.protocol import Coalescer, LocalCoalescer, Trip, flight_key
from inference_cache_sidecar.errors import UpstreamAborted, UpstreamFault, whereabouts
from inference_cache_sidecar.flights import Flight
from inference_cache_sidecar.identity import UpstreamIdentity
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.keeping import Begun, Keeper, Made
from inference_cache_sidecar.lookup import Lookup
from inference_cache_sidecar.metrics import Metrics, Stage
from inference_cache_sidecar.outcome import Answered, Failed, Hit, Miss
from inference_cache_sidecar.query.body import MOST_LABOUR_OF_ANSWERS, is_laborious
from inference_cache_sidecar.render.protocol import NotStorable, Reach, Storable
from inference_cache_sidecar.render.sse import EventSplitter, ends_stream
from inference_cache_sidecar.upstream import Upstream, chunks_of

T = TypeVar("T")
_log = logging.getLogger(__name__)

REBUILT = ("content-length", "accept-encoding", "expect")
"""Request headers that are not upstream's business once we send the body ourselves and must read the answer."""

END_SECONDS: Final = 0.25
"""How long upstream may take to end its body after the last event of a stream."""

_ALONE: Final = LocalCoalescer()


@dataclass(frozen=True, slots=True)
class Policy:
    """What of the spec a flight needs."""

    serve_similar: bool
    look_for_similar: bool
    """False where the semantic tier is off; looking without serving is Shadow."""


class Flying:
    """Makes the work of flights. Holds no state of its own."""

    def __init__(
        self,
        upstream: Upstream,
        identity: UpstreamIdentity,
        access: Access,
        lookup: Lookup,
        keeper: Keeper,
        metrics: Metrics,
        policy: Policy,
        coalescer: Coalescer = _ALONE,
    ) -> None:
        self._upstream = upstream
        self._identity = identity
        self._access = access
        self._lookup = lookup
        self._keeper = keeper
        self._metrics = metrics
        self._coalescer = coalescer
        self.policy = policy

    async def fly(self, flight: Flight, ask: Ask, refused: Miss) -> None:
        """`refused` is what the exact tier said. Raises UpstreamAborted if upstream breaks off in its answer."""
        begun = replace(await self._keeper.begin(ask.query.model, ask.marks), doubts=ask.doubts)
        flight.stamps = begun.stamps
        found = await self._or_without(self._similar(ask), Miss())
        match found:
            case Hit() if self.policy.serve_similar:
                flight.decide(found)
                return
            case Hit():
                self._metrics.shadow("hit")
                found = Miss(found.vector)
            case Miss():
                pass
            case _:
                assert_never(found)
        if found.refusal is None and refused.refusal is not None:
            found = Miss(found.vector, refused.refusal, refused.similarity)
        await self._coalescer.fly(flight, self._trip(flight, ask, found, begun))

    def _trip(self, flight: Flight, ask: Ask, miss: Miss, begun: Begun) -> Trip:
        """Only what may be joined, and who knows what has been flushed, has a part in other replicas' calls."""
        key = None
        if begun.stamps is not None and not ask.asked.directives.no_cache:
            key = flight_key(ask.asked.digest, ask.query.prompt, begun.stamps)
        return Trip(
            key=key,
            lead=lambda: self._lead(flight, ask, miss, begun),
            find=lambda: self._or_without(self._stored(ask), None),
            may_follow=lambda: self._or_without(self._access.confirm(ask.caller.credential, ask.request.headers), False),
            miss=miss,
        )

    async def _stored(self, ask: Ask) -> Hit | None:
        """What the exact tier has now."""
        if not await self._access.confirm(ask.caller.credential, ask.request.headers):
            return None
        found = await self._lookup.exact(ask.asked)
        return found if isinstance(found, Hit) and found.remaining_seconds > 0 else None

    async def _lead(self, flight: Flight, ask: Ask, miss: Miss, begun: Begun) -> None:
        try:
            await self._ask_upstream(flight, ask, miss, begun)
        except UpstreamFault as fault:
            self._identity.doubt()
            flight.decide(Failed(fault))
        except UpstreamAborted:
            self._identity.doubt()
            raise

    async def _similar(self, ask: Ask) -> Hit | Miss:
        if not self.policy.look_for_similar or not ask.query.semantic or ask.asked.directives.no_cache:
            return Miss()
        if not await self._access.confirm(ask.caller.credential, ask.request.headers):
            return Miss()
        begun = time.monotonic()
        found = await self._lookup.similar(ask.asked)
        self._metrics.stage(Stage.SIMILAR, time.monotonic() - begun)
        if isinstance(found, Miss) and found.refusal is not None:
            self._metrics.refused(found.refusal.rule)
        return found

    async def _ask_upstream(self, flight: Flight, ask: Ask, miss: Miss, begun: Begun) -> None:
        headers = header_rules.end_to_end(ask.request.headers, REBUILT)
        headers["Accept-Encoding"] = "identity"
        body = ask.renderer.upstream_body(ask.body, ask.query.rendition)
        sent = time.monotonic()
        async with self._upstream.send("POST", ask.path, headers, body, repeatable=True) as answer:
            self._observe(ask, answer.status)
            events = answer.status == 200 and answer.content_type == "text/event-stream"
            flight.decide(Answered(answer.status, answer.reason or "", CIMultiDict(answer.headers), events, miss))
            last = b""
            if events:
                taken, last = await self._take_events(flight, ask, answer)
            else:
                taken = await self._take_plain(flight, ask, answer)
        seconds = time.monotonic() - sent
        self._metrics.stage(Stage.UPSTREAM, seconds)
        if isinstance(taken, NotStorable):
            self._metrics.not_stored(taken.reason)
        elif flight.keep:
            flight.entry = await self._or_without(self._keep(ask, taken, answer, miss, begun, seconds), None)
        if last:
            await flight.feed(last)

    async def _keep(
        self, ask: Ask, taken: Storable, answer: aiohttp.ClientResponse, miss: Miss, begun: Begun, seconds: float
    ) -> Entry | None:
        vector = await self._vector(ask, taken, miss)
        return await self._keeper.keep(ask.asked, begun, Made(taken, answer.headers, seconds, vector))

    async def _or_without(self, step: Coroutine[None, None, T], otherwise: T) -> T:
        """An edge: a step of the cache's own that fails costs the cache, never the answer."""
        try:
            return await step
        except Exception as error:
            _log.error("the cache failed (%s): going on without", whereabouts(error))
            self._metrics.failed_open()
            return otherwise

    async def _vector(self, ask: Ask, taken: Storable, miss: Miss) -> Vector | None:
        """Given only to answers that may be found by similarity."""
        if not ask.query.semantic or taken.reach is not Reach.ALL or not self.policy.look_for_similar:
            return None
        return miss.vector if miss.vector is not None else await self._lookup.vector(ask.query)

    def _observe(self, ask: Ask, status: int) -> None:
        self._access.observe(ask.caller.credential, ask.path, status)
        if self._access.accepted(ask.caller.credential):
            self._identity.accepted(header_rules.credential_headers(ask.request.headers))

    async def _take_events(self, flight: Flight, ask: Ask, answer: aiohttp.ClientResponse) -> tuple[Storable | NotStorable, bytes]:
        """What came of the stream, and its last event, which is to be fed when the answer is stored.

        Clients hang up at that event: fed before, it would end a flight whose answer nobody had kept yet.
        """
        splitter, assembler, last = EventSplitter(), ask.renderer.assembler(), b""
        try:
            async with asyncio.timeout(None) as ending:
                async for chunk in chunks_of(answer):
                    for event in splitter.feed(chunk):
                        assembler.feed(event)
                        if last:
                            await flight.feed(last)
                        last = event if ends_stream(event) else b""
                        if not last:
                            await flight.feed(event)
                    if last:
                        ending.reschedule(asyncio.get_running_loop().time() + END_SECONDS)
        except (TimeoutError, UpstreamAborted):
            if not last:
                raise
        if splitter.remainder:
            await flight.feed(last + splitter.remainder)
            return NotStorable("unfinished"), b""
        taken = assembler.result() if flight.joinable else NotStorable("too-large")
        laborious = isinstance(taken, Storable) and is_laborious(taken.answer, MOST_LABOUR_OF_ANSWERS)
        return NotStorable("too-large") if laborious else taken, last

    async def _take_plain(self, flight: Flight, ask: Ask, answer: aiohttp.ClientResponse) -> Storable | NotStorable:
        async for chunk in chunks_of(answer):
            await flight.feed(chunk)
        if answer.status != 200:
            return NotStorable("status")
        if not flight.joinable:
            return NotStorable("too-large")
        if answer.content_type != "application/json":
            return NotStorable("content-type")
        whole = flight.whole()
        return NotStorable("too-large") if is_laborious(whole, MOST_LABOUR_OF_ANSWERS) else ask.renderer.from_plain(whole)
