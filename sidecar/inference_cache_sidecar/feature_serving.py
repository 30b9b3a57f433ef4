"""The feature cache in a sidecar: put together from the settings, with its own upstream. `app` opens it and listens for it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Final

from inference_cache_contract.epochs import Epochs
from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.access import Tenancy
from inference_cache_sidecar.exposition import Counters, Reading
from inference_cache_sidecar.features.building import FeatureParts, build_features
from inference_cache_sidecar.features.cache import FeatureCache
from inference_cache_sidecar.features.server import FeatureLimits, FeatureRules, FeatureServer
from inference_cache_sidecar.features.store import MemoryCells, SharedCells
from inference_cache_sidecar.settings import Settings
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.tier import SharedTier
from inference_cache_sidecar.upstream import Upstream, UpstreamLimits

MEMORY_BYTES: Final = 64 * 2**20
"""For rows in this process, beside what answers may take."""


@dataclass(frozen=True, slots=True)
class ServedFeatures:
    cache: FeatureCache
    server: FeatureServer


@asynccontextmanager
async def served_features(
    settings: Settings, shared: SharedTier | None, epochs: Epochs, tenancy: Tenancy, active: Callable[[], bool]
) -> AsyncIterator[ServedFeatures | None]:
    """None where the settings name no feature server. While it is not `active`, everything passes through."""
    spec, limits = settings.spec.features, settings.spec.limits
    if spec.upstream is None:
        yield None
        return
    upstream = Upstream(spec.upstream, UpstreamLimits(limits.connect_seconds, limits.upstream_idle_seconds, limits.header_bytes))
    await upstream.open()
    rules = FeatureRules(
        lambda headers: tenancy.caller(headers).credential,
        FeatureLimits(limits.body_bytes, limits.answer_bytes, limits.body_idle_seconds),
        frozenset(spec.join_keys),
        active=active,
    )
    # A connection of its own: what many rows take must not hold up answers.
    hot = None if shared is None else HotCalls(shared.calls.servers, settings.spec.store.redis.deadline_seconds)
    cache, server = build_features(spec, _parts(settings, shared, hot, epochs), upstream, rules)
    try:
        yield ServedFeatures(cache, server)
    finally:
        await server.close()
        await upstream.close()
        if hot is not None:
            await hot.close()


def _parts(settings: Settings, shared: SharedTier | None, hot: HotCalls | None, epochs: Epochs) -> FeatureParts:
    keys, memory = Keyspace(settings.cache_name), MemoryCells(MEMORY_BYTES)
    if shared is None or hot is None:
        return FeatureParts(memory, epochs, keys)
    one_server = shared.calls.servers.address.kind != "cluster"
    return FeatureParts(SharedCells(hot, one_server=one_server), epochs, keys, near=memory, sealer=shared.sealer)


def readings(served: ServedFeatures | None) -> Iterator[Reading]:
    """The feature cache's counts as metrics."""
    if served is not None:
        counts = served.cache.counts
        told = "What the feature cache did, by what: requests, cells, calls, failures."
        yield Counters("features", told, "what", lambda: {name: float(count) for name, count in asdict(counts).items()})
