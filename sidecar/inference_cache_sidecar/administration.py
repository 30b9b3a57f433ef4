"""What the admin port can see and do, over the parts of one sidecar. Made by `app`."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields

from inference_cache_contract.epochs import CACHE, Epochs, version_epoch
from inference_cache_sidecar.admin import audit
from inference_cache_sidecar.admin.services import AdminServices, FeedbackRequest, FeedbackResult, Status
from inference_cache_sidecar.admin.shared_tier import SharedView
from inference_cache_sidecar.embedder.late import LateEmbedder
from inference_cache_sidecar.embedder.worker import EmbedCounts
from inference_cache_sidecar.exposition import Gauge, Reading, registry
from inference_cache_sidecar.flush import Flusher, FlushIncomplete, FlushRequest, FlushResult
from inference_cache_sidecar.metrics import Verdict
from inference_cache_sidecar.pipeline import Parts
from inference_cache_sidecar.settings import Settings
from inference_cache_sidecar.store.protocol import EntryStore

_log = logging.getLogger(__name__)


class Administration:
    """`shared` is None without a shared store; `more` is shown among the metrics."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        store: EntryStore,
        epochs: Epochs,
        embedder: LateEmbedder | None,
        flusher: Flusher,
        shared: SharedView | None,
        more: Iterable[Reading] = (),
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._store = store
        self._epochs = epochs
        self._embedder = embedder
        self._flusher = flusher
        self._shared = shared
        self._more = more
        self._started = time.monotonic()

    def services(self) -> AdminServices:
        metrics = registry(self._parts.metrics, self._store.stats, [*self._readings(), *self._more])
        return AdminServices(self.status, self.not_ready, self.flush, self.feedback, metrics)

    def status(self) -> Status:
        spec, identity = self._settings.spec, self._parts.identity
        names = (CACHE, version_epoch(spec.model.version))
        return Status(
            cache=self._settings.cache_name,
            model=spec.model.name,
            model_version=spec.model.version,
            mode=spec.mode,
            semantic_mode=spec.semantic.mode,
            revision=identity.revision,
            upstream_confirmed=identity.confirmed,
            epochs={name: self._epochs.current(name) for name in names},
            embedder="off" if self._embedder is None else self._embedder.state,
            store=self._store.stats(),
            uptime_seconds=time.monotonic() - self._started,
            purge=None if self._shared is None else self._shared.tier.purger.latest,
            shared_store=None if self._shared is None else self._shared.status(),
        )

    def not_ready(self) -> Sequence[str]:
        """A missing embedder is no reason: the exact tier serves without it. Nor is an upstream that waits for a caller's key."""
        reasons, identity = [], self._parts.identity
        if not identity.confirmed and not identity.wants_key:
            reasons.append("upstream has not said who it is")
        if self._embedder is not None and self._embedder.state == "loading":
            reasons.append("the embedder is loading")
        return reasons

    async def flush(self, request: FlushRequest, by: str) -> FlushResult:
        """`by` says who ordered it, for the log. Raises FlushIncomplete."""
        if request.target == "key" and not request.dry_run:
            # A key has no epoch: an answer that is in flight under it must not come after the flush.
            self._parts.flights.discard(bytes.fromhex(request.value))
        try:
            result = await self._flusher.flush(request)
        except FlushIncomplete as failure:
            _log.warning("%s", audit.incomplete(request, by, failure))
            raise
        finally:
            # Also where the store failed: the flush is in force here.
            if not request.dry_run:
                self._parts.flights.part()
                self._parts.metrics.flushed(request.target)
        _log.info("%s", audit.done(request, by, result))
        return result

    async def feedback(self, request: FeedbackRequest) -> FeedbackResult | None:
        """A wrong answer's entry goes, and its pair of question and entry is never served again. Raises StoreError."""
        hit = self._parts.served.find(request.answer_id) if request.answer_id is not None else None
        key = request.key if hit is None else hit.stored
        if key is None:
            return None
        self._parts.metrics.feedback(request.verdict)
        if request.verdict is Verdict.RIGHT:
            return FeedbackResult(evicted=False)
        self._parts.flights.discard(key)
        if hit is not None:
            self._parts.lookup.refuted.add(hit.asked, hit.stored)
        return FeedbackResult(evicted=await self._store.delete(key))

    def _readings(self) -> Iterator[Reading]:
        yield Gauge("flights", "Upstream calls in progress.", lambda: len(self._parts.flights))
        yield Gauge("tasks", "Tasks of the event loop.", lambda: len(asyncio.all_tasks()))
        yield Gauge("upstream_confirmed", "1 while upstream is known to be the model its entries are from.", self._confirmed)
        embedder = self._embedder
        if embedder is not None:
            yield Gauge("embedder_breaker_open", "1 while the embedder is given a rest.", lambda: float(embedder.breaker_open))
            for field in fields(EmbedCounts):
                yield Gauge(f"embedder_{field.name}", f"Embedder calls since start: {field.name}.", _reader(embedder, field.name))
        if self._shared is not None:
            yield from self._shared.readings()

    def _confirmed(self) -> float:
        return float(self._parts.identity.confirmed)


def _reader(embedder: LateEmbedder, name: str) -> Callable[[], float]:
    return lambda: float(getattr(embedder.counts, name))
