"""The sidecar as a user starts it, for the demo: the real command in a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from inference_cache_contract.endpoints import READYZ
from inference_cache_toolkit.demo.plan import HOST, Plan
from inference_cache_toolkit.processes import StartError, answers, start, stop, wait_for

READY_SECONDS: Final = 60.0
PATIENCE: Final = ("--semantic-embedder-deadline", "2s")
"""The default gives a slow embedding up for the request's sake; here the question is what the cache finds, on however busy a machine."""


@asynccontextmanager
async def sidecar(
    plan: Plan, upstream: str, log: Path, flags: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    """Ready when entered. Raises StartError, also at the end if it did not last until then."""
    command = [sys.executable, "-m", "inference_cache_toolkit", "sidecar", "--upstream", upstream, *PATIENCE, *flags]
    command += ["--listen", f"{HOST}:{plan.port}", "--admin", f"{HOST}:{plan.admin_port}"]
    child = start("the sidecar", command, log, {**os.environ, **(variables or {})})
    try:
        await asyncio.to_thread(wait_for, child, lambda: answers(plan.admin_url + READYZ), READY_SECONDS)
        yield
        if child.process.poll() is not None:
            raise StartError(f"the sidecar ended by itself:\n{child.tail()}")
    finally:
        stop(child)
