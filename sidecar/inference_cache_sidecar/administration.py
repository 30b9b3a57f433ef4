"""What the admin port can see and do, over the parts of one sidecar. Made by `app`."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

from inference_cache_contract.epochs import CACHE, version_epoch
from inference_cache_sidecar.admin import audit
from inference_cache_sidecar.admin.services import AdminServices, FeedbackRequest, FeedbackResult, SharedStatus, Status
from inference_cache_sidecar.admin.shared_tier import SharedView, missing, unshared
from inference_cache_sidecar.composition import Composition
from inference_cache_sidecar.configuration.configured import Configured
from inference_cache_sidecar.configuration.orders import FlushOrders
from inference_cache_sidecar.draining import Drain
from inference_cache_sidecar.embedder.late import LateEmbedder
from inference_cache_sidecar.embedder.worker import EmbedCounts
from inference_cache_sidecar.exposition import Gauge, Reading, registry
from inference_cache_sidecar.flush import Flusher, FlushIncomplete, FlushRequest, FlushResult
from inference_cache_sidecar.live import Live
from inference_cache_sidecar.metrics import Verdict

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Administered:
    """The parts of a sidecar that the admin port looks at."""

    made: Composition
    live: Live
    flusher: Flusher
    configured: Configured
    orders: FlushOrders
    drain: Drain
    shared: SharedView | None
    """None without a shared store."""


class Administration:
    """`more` is shown among the metrics."""

    def __init__(self, sidecar: Administered, more: Iterable[Reading] = ()) -> None:
        self._made = sidecar.made
        self._live = sidecar.live
        self._flusher = sidecar.flusher
        self._configured = sidecar.configured
        self._orders = sidecar.orders
        self._drain = sidecar.drain
        self._shared = sidecar.shared
        self._more = more
        self._waited_for = sidecar.made.embedding.embedder
        """Before the first request; one that is wanted later is not."""
        self._started = time.monotonic()

    def services(self) -> AdminServices:
        metrics = registry(self._made.metrics, self._made.store.stats, [*self._readings(), *self._more])
        return AdminServices(self.status, self.not_ready, self.flush, self.feedback, metrics, self._drain.drained)

    def status(self) -> Status:
        spec, identity = self._live.spec, self._made.identity
        names = (CACHE, version_epoch(spec.model.version))
        return Status(
            cache=self._made.cache_name,
            model=spec.model.name,
            model_version=spec.model.version,
            mode=spec.mode,
            semantic_mode=spec.semantic.mode,
            revision=identity.revision,
            upstream_confirmed=identity.confirmed,
            epochs={name: self._made.epochs.current(name) for name in names},
            embedder="off" if self._embedder is None or spec.semantic.mode == "Off" else self._embedder.state,
            store=self._made.store.stats(),
            uptime_seconds=time.monotonic() - self._started,
            purge=None if self._shared is None else self._shared.tier.purger.latest,
            shared_store=self._shared_store(),
            configuration=self._configured.status,
            draining=self._drain.draining,
            flushes=self._orders.reports,
        )

    def _shared_store(self) -> SharedStatus | None:
        findings = missing(self._configured.wanted.missing_secrets)
        return unshared(findings) if self._shared is None else self._shared.status(findings)

    @property
    def _embedder(self) -> LateEmbedder | None:
        return self._made.embedding.embedder

    def not_ready(self) -> Sequence[str]:
        """A missing embedder is no reason: the exact tier serves without it. Nor is an upstream that waits for a caller's key."""
        if self._drain.draining:
            return ["the pod is being ended"]
        reasons, identity = [], self._made.identity
        if not identity.confirmed and not identity.wants_key:
            reasons.append("upstream has not said who it is")
        if self._waited_for is not None and self._waited_for.state == "loading":
            reasons.append("the embedder is loading")
        return reasons

    async def flush(self, request: FlushRequest, by: str) -> FlushResult:
        """`by` says who ordered it, for the log. Raises FlushIncomplete."""
        if request.target == "key" and not request.dry_run:
            # A key has no epoch: an answer that is in flight under it must not come after the flush.
            self._made.flights.discard(bytes.fromhex(request.value))
        try:
            result = await self._flusher.flush(request)
        except FlushIncomplete as failure:
            _log.warning("%s", audit.incomplete(request, by, failure))
            raise
        finally:
            # Also where the store failed: the flush is in force here.
            if not request.dry_run:
                self._made.flushed(request)
        _log.info("%s", audit.done(request, by, result))
        return result

    async def feedback(self, request: FeedbackRequest) -> FeedbackResult | None:
        """A wrong answer's entry goes, and its pair of question and entry is never served again. Raises StoreError."""
        hit = self._made.served.find(request.answer_id) if request.answer_id is not None else None
        key = request.key if hit is None else hit.stored
        if key is None:
            return None
        self._made.metrics.feedback(request.verdict)
        if request.verdict is Verdict.RIGHT:
            return FeedbackResult(evicted=False)
        self._made.flights.discard(key)
        if hit is not None:
            self._made.refuted.add(hit.asked, hit.stored)
        return FeedbackResult(evicted=await self._made.store.delete(key))

    def _readings(self) -> Iterator[Reading]:
        yield Gauge("flights", "Upstream calls in progress.", lambda: len(self._made.flights))
        yield Gauge("tasks", "Tasks of the event loop.", lambda: len(asyncio.all_tasks()))
        yield Gauge("upstream_confirmed", "1 while upstream is known to be the model its entries are from.", self._confirmed)
        yield Gauge("embedder_breaker_open", "1 while the embedder is given a rest.", self._of_the_embedder(lambda it: it.breaker_open))
        for field in fields(EmbedCounts):
            read = self._of_the_embedder(partial(_count, name=field.name))
            yield Gauge(f"embedder_{field.name}", f"Embedder calls since start: {field.name}.", read)
        if self._shared is not None:
            yield from self._shared.readings()

    def _of_the_embedder(self, read: Callable[[LateEmbedder], float]) -> Callable[[], float | None]:
        """None while there is none."""
        return lambda: None if self._embedder is None else float(read(self._embedder))

    def _confirmed(self) -> float:
        return float(self._made.identity.confirmed)


def _count(embedder: LateEmbedder, name: str) -> float:
    return float(getattr(embedder.counts, name))
