"""Fixtures of every room: the stand-in for vLLM, in this process, on a free port, and real Redis servers."""

import os
import resource
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings

# Before NumPy loads, as the sidecar's command does it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tests.services.redis_fixtures import (
    cluster,
    cluster_of_the_run,
    redis,
    redis_of_the_run,
    redis_tls,
    redis_url,
    sentinel,
    sentinel_of_the_run,
    shared_server,
    start_fault_proxy,
    start_redis,
)

from inference_cache_toolkit.standin.server import serving
from inference_cache_toolkit.standin.state import Standin

# A machine that is held up is no slow code; a test may ask for more examples, and inherits this.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# Clients and servers of a test share this process, and many a shell gives it 1024 descriptors.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_most = 65_536 if _hard == resource.RLIM_INFINITY else min(_hard, 65_536)
if _soft != resource.RLIM_INFINITY and _soft < _most:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _hard))

__all__ = [
    "cluster",
    "cluster_of_the_run",
    "redis",
    "redis_of_the_run",
    "redis_tls",
    "redis_url",
    "sentinel",
    "sentinel_of_the_run",
    "shared_server",
    "start_fault_proxy",
    "start_redis",
]


@pytest.fixture
def standin() -> Standin:
    """A fresh stand-in without latency; change its fields before or while it runs."""
    return Standin()


@pytest.fixture
async def standin_url(standin: Standin) -> AsyncIterator[str]:
    """The base URL under which `standin` is served."""
    async with serving(standin) as url:
        yield url
