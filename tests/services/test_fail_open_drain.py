"""A supervised sidecar that drains: the worker that comes after the one that was asked drains too, until the model server is another."""

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.services.supervised import PROGRAM, Supervised, supervised, until

from inference_cache_contract.endpoints import DRAIN, DRAIN_TOKEN_VARIABLE, STATUS
from inference_cache_toolkit.processes import answers, free_port, start, stop, wait_for

pytestmark = [pytest.mark.services, pytest.mark.slow]
SECONDS = 120.0
TOKEN = "drain-token"


@contextmanager
def standin(port: int, log: Path) -> Iterator[None]:
    child = start("standin", [PROGRAM, "standin", "--listen", f"127.0.0.1:{port}"], log)
    try:
        wait_for(child, lambda: answers(f"http://127.0.0.1:{port}/health"), SECONDS)
        yield
    finally:
        stop(child)


def status(sidecar: Supervised) -> dict[str, Any]:
    """Empty while no worker answers."""
    try:
        with urllib.request.urlopen(sidecar.admin_url + STATUS, timeout=SECONDS) as answer:
            return dict(json.load(answer))
    except OSError:
        return {}


def is_so(said: dict[str, Any], *names: str) -> bool:
    return all(said.get(name) for name in names)


async def test_the_next_worker_drains_too_until_another_process_of_the_model_server_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DRAIN_TOKEN_VARIABLE, TOKEN)
    port = free_port()
    with supervised(f"http://127.0.0.1:{port}", tmp_path / "sidecar.log") as sidecar:
        with standin(port, tmp_path / "first.log"):
            await until(lambda: status(sidecar).get("upstreamConfirmed"), SECONDS)
            hook = asyncio.create_task(asyncio.to_thread(urllib.request.urlopen, f"{sidecar.admin_url}{DRAIN}/{TOKEN}", None, SECONDS))
            await until(lambda: status(sidecar).get("draining"), SECONDS)
            (worker,) = sidecar.workers()
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(OSError, match=r"."):
                await hook
            await until(lambda: is_so(status(sidecar), "upstreamConfirmed", "draining"), SECONDS)
            assert sidecar.workers() != [worker]
        with standin(port, tmp_path / "second.log"):
            await until(lambda: status(sidecar).get("draining") is False, SECONDS)
            await until(lambda: status(sidecar).get("upstreamConfirmed"), SECONDS)
