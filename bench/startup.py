"""From the command to the first answer, and what the process then holds. Called by the serving bench."""

import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Final

import psutil

from bench import questions
from bench.servers import COMMAND, Server
from inference_cache_toolkit.processes import Child, answers, free_port, start, stop, wait_for

POLL_SECONDS: Final = 0.002
LIMIT_SECONDS: Final = 60.0
SETTLED_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """Medians of several starts, on no core in particular; seconds from the command."""

    first_answer_seconds: float
    """A chat request answered with 200."""
    ready_seconds: float
    """`/readyz` says so: the embedding model is loaded too."""
    idle_rss_mb: float


def measure(upstream: Server, folder: Path, starts: int) -> Start:
    """With the defaults."""
    seen = [_once(upstream, folder / "start.log") for _ in range(starts)]
    first, ready, rss = (median(column) for column in zip(*seen, strict=True))
    return Start(first, ready, rss)


def _once(upstream: Server, log: Path) -> tuple[float, float, float]:
    port, admin = free_port(), free_port()
    began = time.monotonic()
    child = start(
        "sidecar",
        [COMMAND, "sidecar", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--upstream", upstream.url],
        log,
    )
    try:
        _wait_for_answer(child, port)
        first = time.monotonic() - began
        wait_for(child, lambda: answers(f"http://127.0.0.1:{admin}/readyz"), LIMIT_SECONDS)
        ready = time.monotonic() - began
        time.sleep(SETTLED_SECONDS)
        return first, ready, psutil.Process(child.process.pid).memory_info().rss / 1e6
    finally:
        stop(child)


def _wait_for_answer(child: Child, port: int) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not _answered(port):
        if child.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no answer:\n{child.tail()}")
        time.sleep(POLL_SECONDS)


def _answered(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", questions.CHAT, questions.body(questions.stored(0)), questions.HEADERS)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
