"""A feature cache as a process of its own, with a shared store: what the features bench measures.

python -m bench.feature_cache http://127.0.0.1:6566 redis://127.0.0.1:6379/0 PORT [--no-near]
"""

import asyncio
import gc
import sys

import uvloop

from inference_cache_contract.keyspace import Keyspace
from inference_cache_contract.spec_features import Features
from inference_cache_sidecar.access import Tenancy
from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.features.building import FeatureParts, build_features
from inference_cache_sidecar.features.server import FeatureLimits, FeatureRules
from inference_cache_sidecar.features.store import MemoryCells, SharedCells
from inference_cache_sidecar.server import ProxyServer, ServerLimits
from inference_cache_sidecar.shared.address import parse_redis_url
from inference_cache_sidecar.shared.calls import Calls
from inference_cache_sidecar.shared.epochs import Agreement, SharedEpochs
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.servers import Servers
from inference_cache_sidecar.upstream import Upstream, UpstreamLimits

DEADLINE_SECONDS = 1.0
TTL_SECONDS = 3600.0


async def serve(upstream_url: str, redis_url: str, port: int, *, near: bool) -> None:
    upstream = Upstream(upstream_url, UpstreamLimits(5.0, 0.0, 64 * 2**10))
    await upstream.open()
    tenancy = Tenancy("Authorization", b"k" * 32)
    servers, keys = Servers(parse_redis_url(redis_url)), Keyspace("bench")
    hot, calls = HotCalls(servers, DEADLINE_SECONDS), Calls(servers, Breaker(BreakerSettings()), DEADLINE_SECONDS)
    epochs = SharedEpochs(calls, hot, Agreement(keys, "bench", lease_seconds=2.0, longest_seconds=TTL_SECONDS))
    confirming = asyncio.create_task(epochs.run())
    parts = FeatureParts(SharedCells(hot, one_server=True), epochs, keys, MemoryCells(2**26) if near else None)
    rules = FeatureRules(lambda headers: tenancy.caller(headers).credential, FeatureLimits(2**20, 2**24, 60.0))
    _, server = build_features(Features(upstream_url, ttl_seconds=TTL_SECONDS), parts, upstream, rules)
    proxy = ProxyServer(server.handle, ServerLimits(64 * 2**10, 10.0, 75.0))
    await asyncio.get_running_loop().create_server(proxy, "127.0.0.1", port)
    # As the sidecar does.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    await confirming


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), near="--no-near" not in sys.argv))
