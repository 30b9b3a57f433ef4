"""How fast: direct, nginx, a minimal proxy and the sidecar, side by side in one run.

    python -m bench.serving [--quick] [--save]

Prints a line for every path at 1 and 32 clients, then the targets. Ends with status 1 if less than 95 % of any path's
answers were what the path is named after. What is measured how: bench/README.md.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np

from bench import questions, report, startup
from bench.load import Window, Wrk
from bench.report import Measured, Row
from bench.servers import Server, Servers
from inference_cache_contract.canonical import Normalize, canonical
from inference_cache_sidecar.embedder.loading import load_embedder

CLIENTS: Final = (1, 32)
QUESTIONS: Final = 3000
"""Asked in turn: more than the sidecar remembers of requests (2,048), so that none is found there."""
REPEATED: Final = 1000
"""Asked in turn where repeats are to be remembered."""
PATIENT: Final = ("--semantic-embedder-deadline", "2s")
"""32 clients at once on one core wait longer than the default 50 ms, after which they would be misses."""
LEAST_SHARE: Final = 0.95
FRESH_PER_SECOND: Final = 15_000


@dataclass(frozen=True)
class Plan:
    seconds: int
    rounds: int
    sizes: tuple[int, ...]
    starts: int


FULL: Final = Plan(seconds=5, rounds=3, sizes=(1_000, 10_000, 100_000), starts=5)
QUICK: Final = Plan(seconds=1, rounds=1, sizes=(1_000, 10_000), starts=2)


@dataclass
class Path_:
    """One way to an answer, and what its answers must be."""

    name: str
    server: Server
    kind: str
    bodies: Iterable[bytes]
    """A list is asked again and again; an iterator gives what was never asked."""
    windows: dict[int, list[Measured]] = field(default_factory=dict)


class Bench:
    def __init__(self, plan: Plan, wrk: Wrk, servers: Servers) -> None:
        self._plan = plan
        self._wrk = wrk
        self._servers = servers
        self.paths: list[Path_] = []
