"""The parts of a sidecar that live as long as its process. `app` opens them; `rules` makes of them, and a spec, what requests go through.

A spec that changes while the process runs changes numbers in here, and never a part.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from inference_cache_contract.endpoints import REDIS_URL_VARIABLE
from inference_cache_contract.epochs import Epochs
from inference_cache_contract.spec import Spec
from inference_cache_sidecar.access import Access
from inference_cache_sidecar.adapters import ModelChanges
from inference_cache_sidecar.coalescing.coalescer import RedisCoalescer
from inference_cache_sidecar.coalescing.protocol import Coalescer, LocalCoalescer
from inference_cache_sidecar.embedder.late import LateEmbedder
from inference_cache_sidecar.embedder.protocol import Embedder
from inference_cache_sidecar.embedder.worker import EmbeddingWorker, WorkerLimits
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.errors import CannotStart
from inference_cache_sidecar.flights import Flights
from inference_cache_sidecar.flush import FlushRequest
from inference_cache_sidecar.guard.lexical import LexicalGuard
from inference_cache_sidecar.identity import UpstreamIdentity
from inference_cache_sidecar.index.scoped import ScopedIndex
from inference_cache_sidecar.keeping import Keeper
from inference_cache_sidecar.lookup import Refuted
from inference_cache_sidecar.metrics import Metrics, Stage
from inference_cache_sidecar.passing import Passing
from inference_cache_sidecar.served import Served
from inference_cache_sidecar.settings import Settings
from inference_cache_sidecar.shared.changes import Followed
from inference_cache_sidecar.shared.tier import SharedTier, longest_ttl, shared_tier
from inference_cache_sidecar.shared.values import manifest
from inference_cache_sidecar.store.memory import MemoryStore
from inference_cache_sidecar.store.protocol import EntryStore
from inference_cache_sidecar.store.tiered import TieredStore
from inference_cache_sidecar.tasks import ended
from inference_cache_sidecar.upstream import Upstream, UpstreamLimits

DIMENSIONS: Final = 384
"""Of the vectors of all-MiniLM-L6-v2."""
FOLLOWED_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 30.0
EmbedderLoader = Callable[[str, Path | None], Embedder]
_log = logging.getLogger(__name__)


class Embedding:
    """The embedder, from the first spec on that wants one."""

    def __init__(self, load: EmbedderLoader, metrics: Metrics, started: Callable[[LateEmbedder], None]) -> None:
        """`started` is told of it."""
        self._load = load
        self._observe = partial(metrics.stage, Stage.EMBED)
        self._started = started
        self.embedder: LateEmbedder | None = None

    def want(self, spec: Spec) -> None:
        if spec.semantic.mode == "Off" or self.embedder is not None:
            return
        wanted = spec.semantic.embedder
        make = partial(self._load, wanted.name, Path(wanted.path) if wanted.path else None)
        limits = WorkerLimits(wanted.deadline_seconds)
        self.embedder = LateEmbedder(make, lambda embedder: EmbeddingWorker(embedder, limits, observe_seconds=self._observe))
        self.embedder.start()
        self._started(self.embedder)

    async def close(self) -> None:
        if self.embedder is not None:
            await self.embedder.close()


@dataclass(frozen=True, slots=True)
class Composition:
    cache_name: str
    upstream: Upstream
    identity: UpstreamIdentity
    access: Access
    embedding: Embedding
    index: ScopedIndex
    memory: MemoryStore
    store: EntryStore
    shared: SharedTier | None
    tiered: TieredStore | None
    """As `store`, where one is shared."""
    epochs: Epochs
    flights: Flights
    coalescer: Coalescer
    keeper: Keeper
    changes: ModelChanges
    passing: Passing
    guard: LexicalGuard
    refuted: Refuted
    served: Served
    metrics: Metrics
    clock: Callable[[], float]
    smaller: asyncio.Event
    """Set where memory may have to give something back."""

    def flushed(self, request: FlushRequest) -> None:
        """Nobody joins what is in flight from before."""
        self.flights.part()
        self.metrics.flushed(request.target)

    def use(self, spec: Spec) -> None:
        """What of the spec is a number in a part."""
        self.upstream.use(upstream_limits(spec))
        self.access.revalidate_seconds = spec.tenancy.revalidate_seconds
        self.flights.limit = spec.limits.answer_bytes
        self.memory.use(spec.store.memory.max_bytes, stale_seconds(spec))
        self.smaller.set()
        if self.shared is not None:
            self.shared.entries.stale_seconds = stale_seconds(spec)
            self.shared.epochs.use_longest(longest_ttl(spec) + stale_seconds(spec))
        self.embedding.want(spec)


def upstream_limits(spec: Spec) -> UpstreamLimits:
    return UpstreamLimits(spec.limits.connect_seconds, spec.limits.upstream_idle_seconds, spec.limits.header_bytes)


def stale_seconds(spec: Spec) -> float:
    return max(spec.stale.while_revalidate_seconds, spec.stale.if_error_seconds)


async def composed(stack: AsyncExitStack, settings: Settings, spec: Spec, load: EmbedderLoader, clock: Callable[[], float]) -> Composition:
    """Opened in order; `stack` closes them in the reverse one. Entries age by `clock`."""
    metrics = Metrics()
    shared = await _shared(stack, settings, spec, clock)
    epochs: Epochs = MemoryEpochs() if shared is None else shared.epochs
    upstream = Upstream(settings.upstream, upstream_limits(spec))
    await upstream.open()
    stack.push_async_callback(upstream.close)
    identity = UpstreamIdentity(upstream, spec.model.version, settings.revision)
    stack.push_async_callback(ended, [asyncio.create_task(identity.run())])
    embedding = Embedding(load, metrics, partial(_compare, shared))
    stack.push_async_callback(embedding.close)
    index, smaller = ScopedIndex(DIMENSIONS), asyncio.Event()
    memory = MemoryStore(spec.store.memory.max_bytes, epochs, index, clock=clock, longest_stale_seconds=stale_seconds(spec))
    stack.push_async_callback(index.close)
    stack.push_async_callback(ended, [asyncio.create_task(_sweeping(memory, smaller))])
    access = Access(upstream, spec.tenancy.revalidate_seconds, time.monotonic)
    stack.push_async_callback(access.close)
    flights = Flights(spec.limits.answer_bytes, epochs)
    coalescer = _coalescer(stack, shared, flights)
    tiered = None if shared is None else TieredStore(memory, shared, spec.model.version, clock, flights.discard)
    if shared is not None and tiered is not None:
        shared.go_on(shared.changes.follow(Followed(tiered.load, tiered.apply)))
    store: EntryStore = tiered or memory
    changes = ModelChanges(epochs, identity)
    embedding.want(spec)
    return Composition(
        cache_name=settings.cache_name,
        upstream=upstream,
        identity=identity,
        access=access,
        embedding=embedding,
        index=index,
        memory=memory,
        store=store,
        shared=shared,
        tiered=tiered,
        epochs=epochs,
        flights=flights,
        coalescer=coalescer,
        keeper=Keeper(store, epochs, identity, metrics, clock, spec.model.version),
        changes=changes,
        passing=Passing(upstream, identity, changes, flights, metrics),
        guard=LexicalGuard(),
        refuted=Refuted(),
        served=Served(),
        metrics=metrics,
        clock=clock,
        smaller=smaller,
    )


async def _shared(stack: AsyncExitStack, settings: Settings, spec: Spec, clock: Callable[[], float]) -> SharedTier | None:
    """Does not fail if the store is down: it is looked for again and again."""
    if settings.redis is None:
        return None
    opening = shared_tier(settings.redis, settings.cache_name, spec, settings.secrets.encryption_keys, clock)
    try:
        shared = await stack.enter_async_context(opening)
    except OSError as error:
        raise CannotStart(f"{REDIS_URL_VARIABLE}: its TLS files cannot be read: {type(error).__name__}") from error
    _log.info("sharing answers through %s%s", settings.redis, ", encrypted" if shared.sealer.encrypts else "")
    await shared.confirmed_soon()
    return shared


def _compare(shared: SharedTier | None, embedder: LateEmbedder) -> None:
    """What others store is found by similarity, once it is known which vectors can be compared."""

    async def compare(tier: SharedTier) -> None:
        comparable = await embedder.known()
        tier.values.dimensions = comparable.dimensions
        tier.values.manifest = manifest(comparable.digest, comparable.dimensions)
        tier.changes.load_again()

    if shared is not None:
        shared.go_on(compare(shared))


def _coalescer(stack: AsyncExitStack, shared: SharedTier | None, flights: Flights) -> Coalescer:
    """Ends the flights, too: before, replicas that follow one of them have time to hear its end; after, what it came to is told."""
    coalescer = None if shared is None else RedisCoalescer(shared.hot, shared.calls, shared.keys, shared.sealer, flights)
    if coalescer is not None:
        stack.push_async_callback(coalescer.close)
    stack.push_async_callback(flights.close)
    if coalescer is not None:
        stack.push_async_callback(coalescer.drain, FOLLOWED_SECONDS)
    return coalescer or LocalCoalescer()


async def _sweeping(store: MemoryStore, smaller: asyncio.Event) -> None:
    """Gives back what expired or was flushed, without waiting for somebody to look for it; at once where less may be kept."""
    while True:
        try:
            async with asyncio.timeout(SWEEP_SECONDS):
                await smaller.wait()
        except TimeoutError:
            await store.sweep()
        else:
            smaller.clear()
            await store.shrink()
