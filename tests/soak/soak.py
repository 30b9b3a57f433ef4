"""A long run of mixed traffic through a sidecar in a process of its own: whatever comes and goes, nothing may grow.

    soak.py [--requests 1000000] [--clients 16] [--cap 64Mi] [--seed 1]

Hits, misses, streams, herds of two, lists, bad JSON, upstream failures, clients that leave at every moment, flushes. The sidecar's
memory, descriptors, tasks and flights are read every second. The last line is a JSON object; exit status 1 if anything grew or
an answer was wrong. `make soak` runs it, test_soak_short runs some thousand requests of it.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import uvloop
from clients import Client, Tally
from traffic import Traffic

from inference_cache_toolkit.processes import free_port, running, start

GROWTH = 0.05
"""Of the highest memory in the last third over that of the third before."""
SPARE_DESCRIPTORS = 16
"""Connections to upstream that the poll of its identity keeps warm in turn."""
SPARE_TASKS = 4
FLUSHES = 6
SETTLE_SECONDS = 120.0
TOKEN = "soak-token"
WATCHED = {
    "process_resident_memory_bytes": "memory",
    "process_open_fds": "descriptors",
    "inference_cache_flights": "flights",
    "inference_cache_tasks": "tasks",
    "inference_cache_store_used_bytes": "used",
    "inference_cache_store_evicted_total": "evicted",
}


@dataclass(frozen=True)
class Sample:
    """The sidecar's own figures at one moment."""

    requests: int
    memory: float
    descriptors: float
    flights: float
    tasks: float
    used: float
    evicted: float


@dataclass
class Course:
    """All samples of a run."""

    idle: Sample
    samples: list[Sample] = field(default_factory=list)

    def peak(self, first: float, last: float) -> float:
        """Highest memory between two shares of the run."""
        total = self.samples[-1].requests
        return max(sample.memory for sample in self.samples if first * total <= sample.requests <= last * total)

    def growth(self) -> float:
        """Of the last third over the second."""
        return self.peak(2 / 3, 1) / self.peak(1 / 3, 2 / 3) - 1

    def back_to_idle(self, sample: Sample) -> bool:
        few = sample.descriptors <= self.idle.descriptors + SPARE_DESCRIPTORS
        return few and sample.tasks <= self.idle.tasks + SPARE_TASKS

    def faults(self, settled: Sample, wrong: list[str]) -> list[str]:
        """What speaks against the run, in words; empty is good."""
        found = [f"wrong: {each}" for each in wrong]
        if self.growth() > GROWTH:
            found.append(f"memory grew by {self.growth():.1%} in the last third")
        if settled.descriptors > self.idle.descriptors + SPARE_DESCRIPTORS:
            found.append(f"{settled.descriptors:.0f} descriptors are open, {self.idle.descriptors:.0f} were before")
        if settled.tasks > self.idle.tasks + SPARE_TASKS:
            found.append(f"{settled.tasks:.0f} tasks are there, {self.idle.tasks:.0f} were before")
        if settled.flights:
            found.append(f"{settled.flights:.0f} flights never ended")
        if not settled.evicted:
            found.append("nothing was evicted: the cap was never reached")
        return found


@dataclass(frozen=True)
class Sidecar:
    port: int
    admin: str
    upstream: str

    def sample(self, requests: int) -> Sample:
        with urlopen(f"{self.admin}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        found = {WATCHED[name]: float(value) for name, _, value in (line.partition(" ") for line in lines) if name in WATCHED}
        return Sample(requests, **found)

    def flush(self, what: dict[str, object]) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        with urlopen(Request(f"{self.admin}/flush", json.dumps(what).encode(), headers), timeout=60) as answer:
            answer.read()


@contextmanager
def started(cap: str, folder: Path, pace: tuple[str, str] = ("0s", "0s")) -> Iterator[Sidecar]:
    """A sidecar in front of a stand-in; `pace` is the time to the first token and between two."""
    program = Path(sys.executable).with_name("inference-cache")
    upstream, port, admin = free_port(), free_port(), free_port()
    standin = [program, "standin", "--listen", f"127.0.0.1:{upstream}", "--first-token", pace[0], "--per-token", pace[1]]
    where = ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--upstream", f"http://127.0.0.1:{upstream}"]
    sidecar = [program, "sidecar", *where, "--store-memory-max-bytes", cap, "--semantic-embedder-deadline", "10s"]
    with ExitStack() as stack:
        stack.enter_context(running(start("stand-in", standin, folder / "standin.log"), f"http://127.0.0.1:{upstream}/health", 150))
        child = start("sidecar", sidecar, folder / "sidecar.log", {**os.environ, "INFERENCE_CACHE_ADMIN_TOKEN": TOKEN})
        stack.enter_context(running(child, f"http://127.0.0.1:{admin}/readyz", 150))
        yield Sidecar(port, f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{upstream}")


async def watch(sidecar: Sidecar, tally: Tally, course: Course, quiet_seconds: float) -> None:
    """A sample a second, a line now and then."""
    began = said = time.monotonic()
    while True:
        await asyncio.sleep(1)
        course.samples.append(await asyncio.to_thread(sidecar.sample, tally.done))
        if time.monotonic() - said >= quiet_seconds:
            said = time.monotonic()
            say(line(tally, course.samples[-1], said - began))


def line(tally: Tally, sample: Sample, seconds: float) -> str:
    hits = (tally.outcomes["exact"] + tally.outcomes["semantic"]) / max(1, tally.done)
    return (
        f"{tally.done:>9,} requests  {tally.done / seconds:>6,.0f}/s  hits {hits:.0%}  memory {sample.memory / 2**20:.1f} MiB  store "
        f"{sample.used / 2**20:.1f} MiB  evicted {sample.evicted:,.0f}  descriptors {sample.descriptors:.0f}  tasks {sample.tasks:.0f}  "
        f"flights {sample.flights:.0f}  wrong {tally.outcomes['wrong']}"
    )


def say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


async def until(true: Callable[[], bool]) -> None:
    while True:
        if true():
            return
        await asyncio.sleep(0.2)


async def flushing(sidecar: Sidecar, tally: Tally, requests: int) -> None:
    """Everything, and things that are not there, spread over the run."""
    for number in range(1, FLUSHES + 1):
        await until(lambda due=requests * number / (FLUSHES + 1): tally.done >= due)
        await asyncio.to_thread(sidecar.flush, {"all": True} if number % 2 else {"tag": f"tag-{number}"})


async def drive(sidecar: Sidecar, asked: argparse.Namespace, course: Course, tally: Tally) -> None:
    traffic = iter(Traffic(asked.seed))
    watching = asyncio.create_task(watch(sidecar, tally, course, asked.every))
    flusher = asyncio.create_task(flushing(sidecar, tally, asked.requests))
    clients = [Client("127.0.0.1", sidecar.port, tally) for _ in range(asked.clients)]
    await asyncio.gather(*(client.run(traffic, asked.requests) for client in clients))
    course.samples.append(await asyncio.to_thread(sidecar.sample, tally.done))
    for task in (watching, flusher):
        task.cancel()
    await asyncio.gather(watching, flusher, return_exceptions=True)


def settled(sidecar: Sidecar, course: Course, requests: int) -> Sample:
    """When what ended has been cleared away, or has had its time."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        sample = sidecar.sample(requests)
        calm = sample.flights == 0 and course.back_to_idle(sample)
        if calm or time.monotonic() > deadline:
            return sample
        time.sleep(0.5)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Mixed traffic for a long time; nothing may grow.")
    parser.add_argument("--requests", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=16, help="at once; default: %(default)s")
    parser.add_argument("--cap", default="64Mi", help="of the sidecar's memory store; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the traffic; default: %(default)s")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="between two lines; default: %(default)s")
    return parser.parse_args()


def main() -> int:
    asked, tally = parsed(), Tally()
    with tempfile.TemporaryDirectory() as folder, started(asked.cap, Path(folder)) as sidecar:
        course = Course(sidecar.sample(0))
        began = time.monotonic()
        uvloop.run(drive(sidecar, asked, course, tally))
        seconds = time.monotonic() - began
        end = settled(sidecar, course, tally.done)
        log = (Path(folder) / "sidecar.log").read_text()
    faults = course.faults(end, tally.wrong)
    if "Traceback" in log or "ERROR" in log:
        faults.append("the sidecar logged an error: " + next(said for said in log.splitlines() if "Traceback" in said or "ERROR" in said))
    report = {
        "requests": tally.done,
        "seconds": round(seconds, 1),
        "kinds": dict(tally.kinds),
        "outcomes": dict(tally.outcomes),
        "memory_mib": {
            "idle": round(course.idle.memory / 2**20, 1),
            "peak_by_third": [round(course.peak(third / 3, (third + 1) / 3) / 2**20, 1) for third in range(3)],
            "median_of_last_third": round(
                statistics.median(s.memory for s in course.samples[-max(1, len(course.samples) // 3) :]) / 2**20, 1
            ),
        },
        "growth": round(course.growth(), 4),
        "before": {"descriptors": course.idle.descriptors, "tasks": course.idle.tasks},
        "after": {"descriptors": end.descriptors, "tasks": end.tasks, "flights": end.flights, "evicted": end.evicted},
        "faults": faults,
    }
    say(json.dumps(report))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
