"""The agent of a node hands a tree to a pod on the same disk: beside `cp` of the same files, and beside reading them over loopback."""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

from tests.artifacts.real_agent import RealAgent, real_agent

from bench.artifacts.places import Artifact, Served
from bench.artifacts.spending import have_memory, spent
from bench.artifacts.tools import COMMAND, Place
from inference_cache_artifacts.handover.protocol import FILE
from inference_cache_artifacts.store import trees

LEAST_RATIO: Final = 0.8
TOKEN: Final = "token-of-llm"
CP, LOOPBACK, OURS = "cp", "loopback (curl to /dev/null)", "handed over"
Command = Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class Cost:
    seconds: float
    cpu_seconds: float
    """Of the command alone: not the agent's, nor the kernel's while it writes to the disk."""
    peak_mib: float


def lines(artifact: Artifact, served: Served, where: Path, rounds: int) -> Sequence[str]:
    """All in turn; `where` is a folder of the disk, for the agent and for the pod."""
    with tempfile.TemporaryDirectory(dir=where) as folder, real_agent(Path(folder)) as agent:
        (Path(folder) / "token").write_text(TOKEN)
        environment = served.place.environment
        spent([*_fetch(agent, served.place, Path(folder)), "--node-only"], environment, Path(folder) / "log")
        commands = _commands(agent, artifact, served.place, Path(folder))
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for number in range(rounds):
            for name, command in commands.items():
                print(f"hand-over: {number + 1} of {rounds}: {name} …", file=sys.stderr)
                costs[name].append(_cost(command, environment, Path(folder), artifact.size))
    return _told({name: _median(each) for name, each in costs.items()}, artifact.size)


def _commands(agent: RealAgent, artifact: Artifact, place: Place, folder: Path) -> dict[str, Command]:
    store = agent.store("llm")
    (name,) = trees.names(store)
    files = store.tree(name) / "files"
    urls = [part for file in artifact.files for part in ("-o", "/dev/null", _direct(agent) + FILE.format(tree=name, path=file.path))]
    return {
        CP: ["cp", "-r", files, folder / "pod"],
        LOOPBACK: ["curl", "-Z", "-sSf", "-H", f"Authorization: Bearer {TOKEN}", *urls],
        OURS: [*_fetch(agent, place, folder), "--store", folder / "pod"],
    }


def _fetch(agent: RealAgent, place: Place, folder: Path) -> Command:
    what: list[str | Path] = ["fetch", place.url, "--manifest", place.manifest, "--version", "1", "--holder", "llm.bench", "--quiet"]
    return [COMMAND, *what, "--agent", _direct(agent), "--agent-token", folder / "token"]


def _direct(agent: RealAgent) -> str:
    """Past the record that tests look at."""
    return f"http://127.0.0.1:{agent.port}"


def _cost(command: Command, environment: dict[str, str], folder: Path, size: int) -> Cost:
    """Until all of it would survive a power failure."""
    have_memory(folder, size)
    began = perf_counter()
    cost = spent(command, environment, folder / "log")
    os.sync()
    seconds = perf_counter() - began
    shutil.rmtree(folder / "pod", ignore_errors=True)
    return Cost(seconds, cost.cpu_seconds, cost.peak_mib)


def _median(costs: Sequence[Cost]) -> Cost:
    """Of each on its own; of memory the most."""
    return Cost(median(each.seconds for each in costs), median(each.cpu_seconds for each in costs), max(each.peak_mib for each in costs))


def _told(costs: dict[str, Cost], size: int) -> Sequence[str]:
    lines = [f"{name:<30}{_line(cost, size)}" for name, cost in costs.items()]
    ratio = max(costs[CP].seconds, costs[LOOPBACK].seconds) / costs[OURS].seconds
    reached = "yes" if ratio >= LEAST_RATIO else "NO"
    return [*lines, f"{OURS}: {ratio:.2f} of the slower of disk and loopback (must >= {LEAST_RATIO:g}): {reached}"]


def _line(cost: Cost, size: int) -> str:
    speed = size / (1 << 20) / cost.seconds
    return f"{cost.seconds:>8.2f} s{speed:>10,.0f} MiB/s{cost.cpu_seconds:>8.2f} CPU-s{cost.peak_mib:>8.0f} MiB"
