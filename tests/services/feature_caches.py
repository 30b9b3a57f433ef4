"""Feature caches in this process, in front of a feature server, over a real shared store. Imported by the tests that use them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from inference_cache_contract.keyspace import Keyspace
from inference_cache_contract.spec_features import Features
from inference_cache_sidecar.access import Tenancy
from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.features.building import FeatureParts, build_features
from inference_cache_sidecar.features.cache import FeatureCache
from inference_cache_sidecar.features.server import FeatureLimits, FeatureRules
from inference_cache_sidecar.features.store import MemoryCells, SharedCells
from inference_cache_sidecar.server import ProxyServer, ServerLimits
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.calls import Calls
from inference_cache_sidecar.shared.epochs import Agreement, SharedEpochs, new_replica_name
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.sealing import Sealer
from inference_cache_sidecar.shared.servers import Servers
from inference_cache_sidecar.upstream import Upstream, UpstreamLimits

LEASE_SECONDS = 20.0
TTL_SECONDS = 600.0


@dataclass(frozen=True)
class Replica:
    url: str
    cache: FeatureCache
    epochs: SharedEpochs


@asynccontextmanager
async def feature_cache(
    feast: str, redis: str, *, deadline_seconds: float = 5.0, lease_seconds: float = LEASE_SECONDS, keys: tuple[bytes, ...] = ()
) -> AsyncIterator[Replica]:
    """Ready to serve. `deadline_seconds`, of every call to the store, and the lease are generous for machines that are busy."""
    async with AsyncExitStack() as stack:
        servers, keyspace = Servers(parse_redis_url(redis)), Keyspace("tests/features")
        stack.push_async_callback(servers.close)
        hot, calls = HotCalls(servers, deadline_seconds), Calls(servers, Breaker(BreakerSettings()), deadline_seconds)
        stack.push_async_callback(hot.close)
        epochs = SharedEpochs(calls, hot, Agreement(keyspace, new_replica_name(), lease_seconds, TTL_SECONDS))
        confirming = asyncio.create_task(epochs.run())
        stack.push_async_callback(_ended, confirming)
        upstream = Upstream(feast, UpstreamLimits(5.0, 0.0, 2**16))
        await upstream.open()
        stack.push_async_callback(upstream.close)
        shared = SharedCells(hot, one_server=servers.address.kind != "cluster")
        tenancy = Tenancy("Authorization", b"k" * 32)
        limits = FeatureLimits(2**20, 2**24, 60.0)
        rules = FeatureRules(lambda headers: tenancy.caller(headers).credential, limits, frozenset({"user_id", "item_id"}))
        parts = FeatureParts(shared, epochs, keyspace, MemoryCells(2**24), Sealer(keys))
        cache, server = build_features(Features(feast, TTL_SECONDS, TTL_SECONDS), parts, upstream, rules)
        proxy = ProxyServer(server.handle, ServerLimits(2**16, 10.0, 75.0))
        listening = await asyncio.get_running_loop().create_server(proxy, "127.0.0.1", 0)
        stack.push_async_callback(server.close)
        stack.push_async_callback(proxy.shutdown, 5.0)
        stack.callback(listening.close)
        async with asyncio.timeout(150):
            while not epochs.confirmed:
                await asyncio.sleep(0.01)
        yield Replica(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", cache, epochs)


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
