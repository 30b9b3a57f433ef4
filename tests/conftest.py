"""Fixtures of every room: the stand-in for vLLM, in this process, on a free port."""

import os
from collections.abc import AsyncIterator

import pytest

# Before NumPy loads, as the sidecar's command does it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from inference_cache_toolkit.standin.server import serving
from inference_cache_toolkit.standin.state import Standin


@pytest.fixture
def standin() -> Standin:
    """A fresh stand-in without latency; change its fields before or while it runs."""
    return Standin()


@pytest.fixture
async def standin_url(standin: Standin) -> AsyncIterator[str]:
    """The base URL under which `standin` is served."""
    async with serving(standin) as url:
        yield url
