"""The composition root: makes every object from the settings, opens and closes them in one place.

`command` calls `run`; tests and the bench enter `running`.
"""

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import web

from inference_cache_contract.endpoints import REDIS_URL_VARIABLE, Endpoint
from inference_cache_contract.epochs import Epochs
from inference_cache_contract.spec import Spec
from inference_cache_sidecar.access import Access, Tenancy
from inference_cache_sidecar.adapters import ModelChanges
from inference_cache_sidecar.admin.app import build_admin
from inference_cache_sidecar.admin.shared_tier import SharedView
from inference_cache_sidecar.administration import Administration
from inference_cache_sidecar.coalescing.coalescer import RedisCoalescer
from inference_cache_sidecar.coalescing.protocol import Coalescer, LocalCoalescer
from inference_cache_sidecar.embedder.late import LateEmbedder
from inference_cache_sidecar.embedder.loading import load_embedder
from inference_cache_sidecar.embedder.protocol import Embedder
from inference_cache_sidecar.embedder.worker import EmbeddingWorker, WorkerLimits
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.errors import CannotListen, CannotStart
from inference_cache_sidecar.events.building import EventParts, reading_events
from inference_cache_sidecar.events.readings import readings as event_readings
from inference_cache_sidecar.feature_serving import ServedFeatures, served_features
from inference_cache_sidecar.feature_serving import readings as feature_readings
from inference_cache_sidecar.flights import Flights
from inference_cache_sidecar.flush import Flusher
from inference_cache_sidecar.flying import Flying, Policy
from inference_cache_sidecar.guard.lexical import LexicalGuard
from inference_cache_sidecar.identity import UpstreamIdentity
from inference_cache_sidecar.index.scoped import ScopedIndex
from inference_cache_sidecar.keeping import Keeper
from inference_cache_sidecar.listing import Listing
from inference_cache_sidecar.lookup import Lifetimes, Lookup
from inference_cache_sidecar.marks import Trust
from inference_cache_sidecar.metrics import Metrics, Stage
from inference_cache_sidecar.passing import Passing
from inference_cache_sidecar.pipeline import Parts, Pipeline, PipelineRules
from inference_cache_sidecar.placing import Placer
from inference_cache_sidecar.query.rules import QueryRules
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.renderers import renderer_for
from inference_cache_sidecar.repeats import Repeats
from inference_cache_sidecar.served import Served
from inference_cache_sidecar.server import ProxyServer, ServerLimits
from inference_cache_sidecar.settings import ADMIN, FEATURES, LISTEN, Address, ProcessSetting, Settings
from inference_cache_sidecar.shared.changes import Followed
from inference_cache_sidecar.shared.tenancy_key import AgreedKey, random_key
from inference_cache_sidecar.shared.tier import SharedTier, shared_tier
from inference_cache_sidecar.shared.values import manifest
from inference_cache_sidecar.shared.watch import StoreWatch
from inference_cache_sidecar.store.memory import MemoryStore
from inference_cache_sidecar.store.protocol import EntryStore
from inference_cache_sidecar.store.tiered import TieredStore
from inference_cache_sidecar.tasks import ended
from inference_cache_sidecar.upstream import Upstream, UpstreamLimits

DIMENSIONS: Final = 384
"""Of the vectors of all-MiniLM-L6-v2."""
DRAIN_SECONDS: Final = 30.0
FOLLOWED_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 30.0
BACKLOG: Final = 1024
EmbedderLoader = Callable[[str, Path | None], Embedder]
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A sidecar that takes requests; ports as bound."""

    listen: Address
    admin: Address
    parts: Parts
    embedder: LateEmbedder | None
    store: EntryStore
    shared: SharedTier | None
    index: ScopedIndex
    features: ServedFeatures | None
    features_listen: Address | None


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    async with running(settings) as sidecar:
        # Everything made so far lives for ever: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        _log.info("listening on %s for %s, admin on %s", sidecar.listen, settings.upstream, sidecar.admin)
        await stopped.wait()
        _log.info("stopping: no new connections, %g s for requests in flight", DRAIN_SECONDS)


@asynccontextmanager
async def running(
    settings: Settings, load: EmbedderLoader = load_embedder, clock: Callable[[], float] = time.time
) -> AsyncIterator[Running]:
    """Open everything in order, and close it in the reverse one. `load` makes the embedder, off the event loop; entries age by `clock`."""
    spec = settings.spec
    metrics, served = Metrics(), Served()
    async with AsyncExitStack() as stack:
        shared = await _shared(stack, settings, clock)
        epochs: Epochs = MemoryEpochs() if shared is None else shared.epochs
        upstream = Upstream(
            settings.upstream, UpstreamLimits(spec.limits.connect_seconds, spec.limits.upstream_idle_seconds, spec.limits.header_bytes)
        )
        await upstream.open()
        stack.push_async_callback(upstream.close)
        identity = UpstreamIdentity(upstream, spec.model.version)
        stack.push_async_callback(ended, [asyncio.create_task(identity.run())])
        embedder = _embedder(spec, metrics, load)
        if embedder is not None:
            embedder.start()
            stack.push_async_callback(embedder.close)
        index = ScopedIndex(DIMENSIONS)
        memory = _memory(spec, epochs, index, clock)
        stack.push_async_callback(index.close)
        stack.push_async_callback(ended, [asyncio.create_task(_sweeping(memory))])
        access = Access(upstream, spec.tenancy.revalidate_seconds, time.monotonic)
        stack.push_async_callback(access.close)
        flights = Flights(spec.limits.answer_bytes, epochs)
        coalescer = _coalescer(stack, shared, flights)
        tiered = None if shared is None else TieredStore(memory, shared, spec.model.version, clock, flights.discard)
        store: EntryStore = tiered or memory
        lookup = Lookup(store, LexicalGuard(), embedder, _stale_seconds(spec), clock, partial(metrics.stage, Stage.SEARCH))
        tenancy_key = settings.secrets.tenancy_key or random_key()
        tenancy = Tenancy(spec.tenancy.source, tenancy_key, spec.tenancy.claim)
        placer = Placer(settings.cache_name, identity, tenancy, _query_rules(spec))
        if shared is not None and tiered is not None:
            _follow(shared, tiered, embedder)
            if settings.secrets.tenancy_key is None:
                _agree(shared, tenancy_key, tenancy, placer)
        changes = ModelChanges(epochs, identity)
        keeper = Keeper(store, epochs, identity, metrics, clock, spec.model.version)
        parts = Parts(
            upstream=upstream,
            identity=identity,
            placer=placer,
            repeats=Repeats(placer, store, access, clock, spec.exact.ttl_seconds, spec.limits.body_bytes),
            access=access,
            trust=Trust(spec.trusted_headers.sources),
            lookup=lookup,
            flights=flights,
            flying=Flying(upstream, identity, access, lookup, keeper, metrics, _policy(spec), coalescer),
            listing=Listing(upstream, access, lookup, keeper),
            renderers={endpoint: renderer_for(endpoint, _answers(spec)) for endpoint in Endpoint},
            passing=Passing(upstream, identity, changes, flights, metrics),
            changes=changes,
            served=served,
            metrics=metrics,
            clock=clock,
        )
        flusher = Flusher(epochs, store)
        stack.push_async_callback(flusher.close)
        events = await stack.enter_async_context(reading_events(settings, EventParts(epochs, shared, flusher, metrics.flushed)))
        listen = await _listening(stack, settings, LISTEN, settings.listen, Pipeline(parts, _pipeline_rules(spec)).handle)
        features = await stack.enter_async_context(served_features(settings, shared, epochs, tenancy))
        features_listen = None
        if features is not None:
            features_listen = await _listening(stack, settings, FEATURES, settings.features, features.server.handle)
            _log.info("caching features of %s on %s", spec.features.upstream, features_listen)
        view = _watched(shared, tiered, coalescer)
        more = [*event_readings(events.counts), *feature_readings(features)]
        administration = Administration(settings, parts, store, epochs, embedder, flusher, view, more)
        admin = await _administered(stack, settings, administration)
        yield Running(listen, admin, parts, embedder, store, shared, index, features, features_listen)


async def _listening(stack: AsyncExitStack, settings: Settings, setting: ProcessSetting, address: Address, handle: Handler) -> Address:
    limits = settings.spec.limits
    proxy = ProxyServer(handle, ServerLimits(limits.header_bytes, limits.header_seconds, limits.keepalive_seconds, limits.connections))
    with _binding(setting, address):
        server = await asyncio.get_running_loop().create_server(proxy, address.host, address.port, backlog=BACKLOG)
    stack.push_async_callback(proxy.shutdown, DRAIN_SECONDS)
    stack.callback(proxy.pre_shutdown)
    stack.callback(server.close)
    return Address(address.host, server.sockets[0].getsockname()[1])


async def _administered(stack: AsyncExitStack, settings: Settings, administration: Administration) -> Address:
    runner = web.AppRunner(build_admin(administration.services(), settings.admin_token), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    with _binding(ADMIN, settings.admin):
        await web.TCPSite(runner, settings.admin.host, settings.admin.port).start()
    return Address(settings.admin.host, runner.addresses[0][1])


@contextmanager
def _binding(setting: ProcessSetting, address: Address) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
        raise CannotListen(f"{setting.flag}: {address}: {reason}") from error


async def _shared(stack: AsyncExitStack, settings: Settings, clock: Callable[[], float]) -> SharedTier | None:
    """Does not fail if the store is down: it is looked for again and again."""
    if settings.redis is None:
        return None
    opening = shared_tier(settings.redis, settings.cache_name, settings.spec, settings.secrets.encryption_keys, clock)
    try:
        shared = await stack.enter_async_context(opening)
    except OSError as error:
        raise CannotStart(f"{REDIS_URL_VARIABLE}: its TLS files cannot be read: {type(error).__name__}") from error
    _log.info("sharing answers through %s%s", settings.redis, ", encrypted" if shared.sealer.encrypts else "")
    await shared.confirmed_soon()
    return shared


def _follow(shared: SharedTier, store: TieredStore, embedder: LateEmbedder | None) -> None:
    """What others delete goes here too; what they store is found by similarity, once it is known which vectors can be compared."""

    async def compare(known: Awaitable[Embedder]) -> None:
        comparable = await known
        shared.values.dimensions = comparable.dimensions
        shared.values.manifest = manifest(comparable.digest, comparable.dimensions)
        shared.changes.load_again()

    shared.go_on(shared.changes.follow(Followed(store.load, store.apply)))
    if embedder is not None:
        shared.go_on(compare(embedder.known()))


def _coalescer(stack: AsyncExitStack, shared: SharedTier | None, flights: Flights) -> Coalescer:
    """Ends the flights, too: before, replicas that follow one of them have time to hear its end; after, what it came to is told."""
    coalescer = None if shared is None else RedisCoalescer(shared.hot, shared.calls, shared.keys, shared.sealer, flights)
    if coalescer is not None:
        stack.push_async_callback(coalescer.close)
    stack.push_async_callback(flights.close)
    if coalescer is not None:
        stack.push_async_callback(coalescer.drain, FOLLOWED_SECONDS)
    return coalescer or LocalCoalescer()


def _watched(shared: SharedTier | None, store: TieredStore | None, coalescer: Coalescer) -> SharedView | None:
    if shared is None or store is None or not isinstance(coalescer, RedisCoalescer):
        return None
    watch = StoreWatch(shared.calls.servers, shared.keys, shared.epochs.lease_seconds)
    shared.go_on(watch.run())
    return SharedView(shared, store, watch, coalescer.counts)


def _agree(shared: SharedTier, own: bytes, tenancy: Tenancy, placer: Placer) -> None:
    def use(key: bytes) -> None:
        tenancy.use(key)
        placer.forget()

    shared.go_on(AgreedKey(shared.calls, shared.keys, shared.sealer, own, use).run())


async def _sweeping(store: MemoryStore) -> None:
    """Gives back what expired or was flushed, without waiting for somebody to look for it."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        await store.sweep()


def _embedder(spec: Spec, metrics: Metrics, load: EmbedderLoader) -> LateEmbedder | None:
    if spec.semantic.mode == "Off":
        return None
    wanted = spec.semantic.embedder
    make = partial(load, wanted.name, Path(wanted.path) if wanted.path else None)
    observe = partial(metrics.stage, Stage.EMBED)
    return LateEmbedder(make, lambda embedder: EmbeddingWorker(embedder, WorkerLimits(wanted.deadline_seconds), observe_seconds=observe))


def _stale_seconds(spec: Spec) -> float:
    return max(spec.stale.while_revalidate_seconds, spec.stale.if_error_seconds)


def _memory(spec: Spec, epochs: Epochs, index: ScopedIndex, clock: Callable[[], float]) -> MemoryStore:
    return MemoryStore(spec.store.memory.max_bytes, epochs, index, clock=clock, longest_stale_seconds=_stale_seconds(spec))


def _policy(spec: Spec) -> Policy:
    return Policy(serve_similar=spec.semantic.mode == "Serve", look_for_similar=spec.semantic.mode != "Off")


def _answers(spec: Spec) -> AnswerPolicy:
    answers = spec.answers
    return AnswerPolicy(answers.length, answers.tool_calls, answers.content_filter, spec.limits.answer_bytes)


def _query_rules(spec: Spec) -> QueryRules:
    return QueryRules(spec.sampling.cache, spec.exact.normalize, frozenset(spec.semantic.endpoints))


def _pipeline_rules(spec: Spec) -> PipelineRules:
    return PipelineRules(
        bypass=spec.mode == "Bypass",
        threshold=spec.semantic.threshold,
        lifetimes=Lifetimes(spec.exact.ttl_seconds, spec.semantic.ttl_seconds),
        categories=spec.semantic.categories,
        stale_while_revalidate_seconds=spec.stale.while_revalidate_seconds,
        stale_if_error_seconds=spec.stale.if_error_seconds,
        body_bytes=spec.limits.body_bytes,
        body_idle_seconds=spec.limits.body_idle_seconds,
    )
