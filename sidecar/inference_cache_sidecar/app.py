"""The composition root: opens everything in order from the settings, and closes it in the reverse one.

`command` calls `run`; tests and the bench enter `running`. `composition` makes what lasts, `rules` what a new spec replaces.
"""

import asyncio
import gc
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import uvloop
from aiohttp import web

from inference_cache_sidecar.access import Tenancy
from inference_cache_sidecar.admin.app import build_admin
from inference_cache_sidecar.admin.shared_tier import SharedView
from inference_cache_sidecar.administration import Administered, Administration
from inference_cache_sidecar.coalescing.coalescer import RedisCoalescer
from inference_cache_sidecar.composition import Composition, EmbedderLoader, composed, stale_seconds
from inference_cache_sidecar.configuration.configured import Configured
from inference_cache_sidecar.configuration.following import following
from inference_cache_sidecar.configuration.order_records import OrderRecords
from inference_cache_sidecar.configuration.orders import FlushOrders, OrderParts, OrderTerms
from inference_cache_sidecar.doors import Doors
from inference_cache_sidecar.draining import Drain, DrainMemory, DrainParts
from inference_cache_sidecar.embedder.late import LateEmbedder
from inference_cache_sidecar.embedder.loading import load_embedder
from inference_cache_sidecar.events.building import EventParts, reading_events
from inference_cache_sidecar.events.readings import readings as event_readings
from inference_cache_sidecar.exposition import Reading
from inference_cache_sidecar.feature_serving import ServedFeatures, served_features
from inference_cache_sidecar.feature_serving import readings as feature_readings
from inference_cache_sidecar.flush import Flusher, FlushRequest, epoch_name
from inference_cache_sidecar.index.scoped import ScopedIndex
from inference_cache_sidecar.listeners import Listeners
from inference_cache_sidecar.live import Live
from inference_cache_sidecar.pipeline import Parts
from inference_cache_sidecar.rules import server_limits
from inference_cache_sidecar.server import ProxyServer
from inference_cache_sidecar.settings import ADMIN, FEATURES, LISTEN, Address, ProcessSetting, Settings, Wanted
from inference_cache_sidecar.shared.tenancy_key import AgreedKey, random_key
from inference_cache_sidecar.shared.tier import SharedTier
from inference_cache_sidecar.shared.watch import StoreWatch
from inference_cache_sidecar.store.protocol import EntryStore
from inference_cache_sidecar.supervisor.shared_page import WorkerPage
from inference_cache_sidecar.supervisor.worker_side import Duties, PagedDrain, quiet, serve_under
from inference_cache_sidecar.supervisor.worker_side import readings as supervised_readings
from inference_cache_sidecar.tasks import ended

DRAIN_SECONDS: Final = 30.0
SHED_SHARE: Final = 0.6
"""Of what is stored, what stays where the container's memory runs short."""
SHED_LEAST_BYTES: Final = 16 << 20
"""Nothing is gained by keeping less than this."""
RETIRED_IDLE_SECONDS: Final = 15.0
"""For clients with an open connection to ask once more, before a worker that was replaced hangs up."""
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_TERMS: Final = OrderTerms()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside this process and takes part in its end."""

    ask_for_successor: Callable[[], object] = lambda: None
    """Called where a configuration needs another process."""
    relayed: Callable[[], int] = lambda: 0
    """Connections that are passed through past this process."""
    readings: Sequence[Reading] = ()
    drain: DrainMemory | None = None
    """What the workers of one sidecar know of its drain."""
    retired: Callable[[], bool] = lambda: False
    """Another worker has taken over."""


@dataclass(frozen=True, slots=True)
class Running:
    """A sidecar that takes requests; ports as bound."""

    listen: Address
    admin: Address
    made: Composition
    live: Live
    orders: FlushOrders
    features: ServedFeatures | None
    features_listen: Address | None
    doors: Doors
    listeners: Listeners

    @property
    def parts(self) -> Parts:
        """At present."""
        return self.live.parts

    @property
    def embedder(self) -> LateEmbedder | None:
        return self.made.embedding.embedder

    @property
    def store(self) -> EntryStore:
        return self.made.store

    @property
    def shared(self) -> SharedTier | None:
        return self.made.shared

    @property
    def index(self) -> ScopedIndex:
        return self.made.index


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    page = None if settings.inherited is None else WorkerPage(settings.inherited.page, settings.inherited.slot)
    beside = Beside() if page is None else _beside(page)
    async with running(settings, beside=beside) as sidecar, AsyncExitStack() as stack:
        # Everything made so far lives for ever: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        _log.info("listening on %s for %s, admin on %s", sidecar.listen, settings.upstream, sidecar.admin)
        if page is not None:
            under = serve_under(page, _duties(sidecar, stopped.set))
            stack.push_async_callback(ended, [asyncio.create_task(under)])
        await stopped.wait()
        _log.info("stopping: no new connections, %g s for requests in flight", DRAIN_SECONDS)


def _beside(page: WorkerPage) -> Beside:
    return Beside(page.ask_for_successor, page.relayed, tuple(supervised_readings(page)), PagedDrain(page), lambda: page.retired)


@asynccontextmanager
async def running(
    settings: Settings,
    load: EmbedderLoader = load_embedder,
    clock: Callable[[], float] = time.time,
    beside: Beside = Beside(),
    order_terms: OrderTerms = _TERMS,
) -> AsyncIterator[Running]:
    """Open everything in order, and close it in the reverse one. `load` makes the embedder, off the event loop; entries age by `clock`."""
    configured = Configured(settings)
    settings = _started(settings, configured.wanted)
    async with AsyncExitStack() as stack:
        made = await composed(stack, settings, settings.spec, load, clock)
        key = settings.secrets.tenancy_key or random_key()
        live, features_tenancy = Live(made, configured.wanted, key), Tenancy("Shared", key)
        if made.shared is not None and settings.secrets.tenancy_key is None:
            _agree(made.shared, key, live, features_tenancy)
        flusher = Flusher(made.epochs, made.store)
        stack.push_async_callback(flusher.close)
        orders = _flush_orders(made, flusher, order_terms)
        stack.push_async_callback(orders.close)
        orders.heed(configured.orders)
        events = await stack.enter_async_context(
            reading_events(settings, EventParts(made.epochs, made.shared, flusher, made.metrics.flushed))
        )
        doors, listeners = Doors(settings.inherited), Listeners()
        open_door = partial(_listening, stack, settings, doors, listeners)
        listen = await open_door(LISTEN, settings.listen, live.handle)
        serving = served_features(settings, made.shared, made.epochs, features_tenancy, lambda: live.active)
        features = await stack.enter_async_context(serving)
        features_listen = None
        if features is not None:
            features_listen = await open_door(FEATURES, settings.features, features.server.handle)
            _log.info("caching features of %s on %s", settings.spec.features.upstream, features_listen)
        drain = _drain(settings, made, live, listeners, beside)
        drain.look()
        stack.push_async_callback(ended, [asyncio.create_task(drain.watch())])
        sidecar = Administered(made, live, flusher, configured, orders, drain, _watched(made))
        administration = Administration(sidecar, [*event_readings(events.counts), *feature_readings(features), *beside.readings])
        admin = await _administered(stack, settings, doors, administration)
        if settings.configuration is not None:
            use = _using(live, listeners)
            follow = following(configured, use, orders.heed, beside.ask_for_successor)
            stack.push_async_callback(ended, [asyncio.create_task(follow)])
        yield Running(listen, admin, made, live, orders, features, features_listen, doors, listeners)


def _started(settings: Settings, wanted: Wanted) -> Settings:
    """With what the configuration's file has at the start. Without encryption keys that there should be, nothing is shared."""
    if wanted.must_not_share and settings.redis is not None:
        _log.error("the shared store is to hold encrypted answers, and there is no key: this sidecar keeps its answers to itself")
    return replace(settings, spec=wanted.spec, redis=None if wanted.must_not_share else settings.redis)


def _using(live: Live, listeners: Listeners) -> Callable[[Wanted], None]:
    def use(wanted: Wanted) -> None:
        live.use(wanted)
        listeners.use(server_limits(wanted.spec))

    return use


def _flush_orders(made: Composition, flusher: Flusher, terms: OrderTerms) -> FlushOrders:
    shared = made.shared

    def deleted(request: FlushRequest) -> int | None:
        latest = None if shared is None else shared.purger.latest
        return latest.deleted if latest is not None and latest.name == epoch_name(request) else None

    records = None if shared is None else OrderRecords(shared.calls, shared.keys, terms.lease)
    return FlushOrders(OrderParts(flusher, records, made.flushed, deleted), terms)


def _drain(settings: Settings, made: Composition, live: Live, listeners: Listeners, beside: Beside) -> Drain:
    def mark(draining: bool) -> None:
        # One that was replaced finishes what it has begun, whatever comes of the pod.
        live.drain(draining or beside.retired())
        listeners.drain(draining or beside.retired())

    def in_flight() -> int:
        # A flight may have readers at other replicas alone.
        return max(listeners.busy, len(made.flights)) + beside.relayed()

    parts = DrainParts(mark, in_flight, listeners.close_idle, made.identity)
    return Drain(parts, settings.drain.least_seconds, lambda: live.drain_seconds, memory=beside.drain)


async def _listening(
    stack: AsyncExitStack,
    settings: Settings,
    doors: Doors,
    listeners: Listeners,
    setting: ProcessSetting,
    address: Address,
    handle: Handler,
) -> Address:
    proxy = ProxyServer(handle, server_limits(settings.spec))
    listeners.add(proxy)
    bound = await doors.open(proxy, setting, address)
    stack.push_async_callback(proxy.shutdown, DRAIN_SECONDS)
    stack.callback(proxy.pre_shutdown)
    stack.callback(doors.close)
    return bound


async def _administered(stack: AsyncExitStack, settings: Settings, doors: Doors, administration: Administration) -> Address:
    application = build_admin(administration.services(), settings.admin_token, settings.drain.token)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    assert runner.server is not None, "it is made by setup()"
    bound = await doors.open(runner.server, ADMIN, settings.admin)
    stack.callback(doors.close)
    return bound


def _duties(sidecar: Running, ended: Callable[[], None]) -> Duties:
    def shed() -> None:
        memory = sidecar.made.memory
        stats = memory.stats()
        kept = max(int(stats.used_bytes * SHED_SHARE), SHED_LEAST_BYTES)
        memory.use(min(kept, stats.max_bytes), stale_seconds(sidecar.live.spec))
        sidecar.made.smaller.set()

    def restore() -> None:
        spec = sidecar.live.spec
        sidecar.made.memory.use(spec.store.memory.max_bytes, stale_seconds(spec))

    async def retire() -> None:
        sidecar.doors.close()
        sidecar.live.drain()
        sidecar.listeners.drain()
        listeners = sidecar.listeners
        await quiet(lambda: max(listeners.busy, len(sidecar.made.flights)), lambda: listeners.open, RETIRED_IDLE_SECONDS)

    return Duties(shed, restore, retire, ended)


def _watched(made: Composition) -> SharedView | None:
    shared, coalescer = made.shared, made.coalescer
    if shared is None or made.tiered is None or not isinstance(coalescer, RedisCoalescer):
        return None
    watch = StoreWatch(shared.calls.servers, shared.keys, shared.epochs.lease_seconds)
    shared.go_on(watch.run())
    return SharedView(shared, made.tiered, watch, coalescer.counts)


def _agree(shared: SharedTier, own: bytes, live: Live, features_tenancy: Tenancy) -> None:
    def use(key: bytes) -> None:
        live.use_key(key)
        features_tenancy.use(key)

    shared.go_on(AgreedKey(shared.calls, shared.keys, shared.sealer, own, use).run())
