"""Redis for tests of every folder, started when first asked for. Imported by tests/conftest.py.

The shared servers serve the whole run. A test may pause, kill and restart them: the next one gets them whole and empty.
What changes their settings takes a server of its own, by `start_redis`.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.services.fault_proxy import FaultProxy, fault_proxy
from tests.services.redis_sentinel import SentinelServers, sentinel_servers
from tests.services.redis_servers import ClusterServers, cluster_servers, whole
from tests.services.redis_tls import tls_redis_server

from inference_cache_toolkit.redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def redis_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def sentinel_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelServers]:
    with sentinel_servers(tmp_path_factory.mktemp("sentinel")) as servers:
        yield servers


@pytest.fixture(scope="session")
def cluster_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    with cluster_servers(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def redis(redis_of_the_run: RedisServer) -> RedisServer:
    """One server."""
    whole(redis_of_the_run)
    redis_of_the_run.empty()
    return redis_of_the_run


@pytest.fixture
def redis_url(redis: RedisServer) -> str:
    """The same server's URL."""
    return redis.url


@pytest.fixture
def sentinel(sentinel_of_the_run: SentinelServers) -> SentinelServers:
    """A master with a replica, and three sentinels."""
    sentinel_of_the_run.whole()
    sentinel_of_the_run.empty()
    return sentinel_of_the_run


@pytest.fixture
def cluster(cluster_of_the_run: ClusterServers) -> ClusterServers:
    """Three masters."""
    cluster_of_the_run.whole()
    cluster_of_the_run.empty()
    return cluster_of_the_run


@pytest.fixture(params=[pytest.param("redis", id="standalone"), "sentinel", "cluster"])
def shared_server(request: pytest.FixtureRequest) -> str:
    """URL of an empty store, one test for each kind of servers."""
    servers: RedisServer | SentinelServers | ClusterServers = request.getfixturevalue(request.param)
    return servers.url


@pytest.fixture
def redis_tls(tmp_path: Path) -> Iterator[RedisServer]:
    """A fresh server with TLS and a user who may touch the cache's keys only; all of that is in its `url`."""
    with tls_redis_server(tmp_path / "redis-tls") as server:
        yield server


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """`start_redis(port=None, config=())` starts a fresh server, stopped with the test."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def begin(**options: Any) -> RedisServer:
            return stack.enter_context(redis_server(tmp_path / f"redis-{next(numbers)}", **options))

        yield begin


@pytest.fixture
async def start_fault_proxy() -> AsyncIterator[Callable[[int], Awaitable[FaultProxy]]]:
    """`await start_fault_proxy(port)`: a proxy before that port of this machine, gone with the test."""
    async with AsyncExitStack() as stack:

        async def begin(upstream: int) -> FaultProxy:
            return await stack.enter_async_context(fault_proxy(upstream))

        yield begin
