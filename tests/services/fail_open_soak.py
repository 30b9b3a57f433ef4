"""Load on a supervised sidecar whose worker is killed, frozen and replaced in turn, for as long as one likes; and what supervision costs.

`python -m tests.services.fail_open_soak --seconds 60`, `python -m tests.services.fail_open_soak --cost`. Ends with 1 if a client saw
anything that it must not.
"""

import argparse
import asyncio
import itertools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.services.supervised import PROGRAM, Load, Supervised, hits, resident_bytes, say, supervised, until

from inference_cache_sidecar.supervisor.judging import Backoff
from inference_cache_toolkit.processes import answers, free_port, start, stop, wait_for

WAIT_SECONDS = 60.0
SETTLED_SECONDS = 2.0
FAULTS = ("kill", "freeze", "hand over")


@dataclass(frozen=True)
class Seen:
    """What clients saw of one fault."""

    fault: str
    failed: int
    slowest_seconds: float
    hits_back_seconds: float


@contextmanager
def stand_in(folder: Path) -> Iterator[str]:
    port = free_port()
    arguments = ["--listen", f"127.0.0.1:{port}", "--first-token", "5ms", "--per-token", "5ms", "--tokens", "4"]
    child = start("standin", [PROGRAM, "standin", *arguments], folder / "standin.log")
    try:
        wait_for(child, lambda: answers(f"http://127.0.0.1:{port}/health"), WAIT_SECONDS)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(child)


async def soak(sidecar: Supervised, seconds: float, a_second: float) -> list[Seen]:
    """One fault after the other under load, each once hits are back."""
    await hits(sidecar.url)
    seen: list[Seen] = []
    end = time.monotonic() + seconds
    for fault in itertools.cycle(FAULTS):
        if time.monotonic() > end:
            return seen
        seen.append(await _suffered(sidecar, fault, a_second))
        say(str(seen[-1]))
    return seen


async def _suffered(sidecar: Supervised, fault: str, a_second: float) -> Seen:
    load = Load(sidecar.url, a_second)
    running = asyncio.create_task(load.run())
    await until(lambda: load.answers and load.answers[-1].hit, WAIT_SECONDS)
    await until(lambda: len(sidecar.workers()) == 1, WAIT_SECONDS)
    (worker,) = sidecar.workers()
    # One that ends sooner is a crash loop to its supervisor, which waits longer each time.
    steady = time.monotonic() + Backoff.STEADY_SECONDS + SETTLED_SECONDS
    await until(lambda: time.monotonic() > steady, WAIT_SECONDS)
    since = time.monotonic()
    if fault == "hand over":
        sidecar.page(worker).ask_for_successor()
    else:
        os.kill(worker, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    await until(lambda: worker not in sidecar.workers(), WAIT_SECONDS)
    await until(lambda: any(answer.hit and answer.began > since for answer in load.answers), WAIT_SECONDS)
    done = time.monotonic() + SETTLED_SECONDS
    await until(lambda: load.answers[-1].began > done, WAIT_SECONDS)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    failed = len(load.failed(since)) if fault != "hand over" else sum(answer.failure is not None for answer in load.answers)
    return Seen(fault, failed, load.slowest_seconds(since), load.hits_back_seconds(since))


async def measured(url: str, seconds: float, a_second: float) -> Load:
    await hits(url)
    load = Load(url, a_second)
    with suppress(TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(seconds):
            await load.run()
    return load


@contextmanager
def alone(upstream: str, log: Path) -> Iterator[str]:
    """A sidecar without a supervisor."""
    port = free_port()
    listen = ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}", "--upstream", upstream, "--semantic-mode", "Off"]
    child = start("sidecar", [PROGRAM, "sidecar", *listen], log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(child)


async def cost(upstream: str, folder: Path, seconds: float, a_second: float) -> None:
    """Both side by side in turns, since the machine changes under them."""
    with alone(upstream, folder / "alone.log") as plain, supervised(upstream, folder / "sidecar.log") as sidecar:
        for url in (plain, sidecar.url):
            await measured(url, 1.0, a_second)
        for _ in range(3):
            for name, url in (("without", plain), ("with", sidecar.url)):
                load = await measured(url, seconds, a_second)
                say(f"{name:>8}: p50 {load.percentile(0.5) * 1e3:.2f} ms, p99 {load.percentile(0.99) * 1e3:.2f} ms, {len(load.answers)}")
        say(f"supervisor {resident_bytes(sidecar.pid) / 1e6:.1f} MB, worker {resident_bytes(sidecar.workers()[0]) / 1e6:.1f} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--cost", action="store_true", help="compare with an unsupervised sidecar")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, stand_in(Path(name)) as upstream:
        if asked.cost:
            asyncio.run(cost(upstream, Path(name), min(asked.seconds, 5.0), asked.rate))
            return 0
        with supervised(upstream, Path(name) / "sidecar.log") as sidecar:
            seen = asyncio.run(soak(sidecar, asked.seconds, asked.rate))
        return 1 if any(fault.failed for fault in seen) else 0


if __name__ == "__main__":
    sys.exit(main())
