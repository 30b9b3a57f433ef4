"""Runs into lines of text. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.artifacts.spending import Spent
from bench.artifacts.tools import BARE, BOTO3, OURS

GIB: Final = 1 << 30
MIB: Final = 1 << 20
HEADINGS: Final = ("s", "MiB/s", "x boto3", "CPU-s/GiB", "server", "MiB", "s + sync", "x boto3", "verified")
LEAST_RATIO, MOST_CPU, MOST_MIB = 1.5, 1.0, 80.0


@dataclass(frozen=True, slots=True)
class Run:
    spent: Spent
    server_cpu_seconds: float
    on_disk_seconds: float
    """With a `sync` behind it."""


def lines(rows: Mapping[str, Sequence[Run]], size: int, verifies: Mapping[str, str]) -> list[str]:
    """One for each tool, then ours against what it must reach."""
    width = max(map(len, rows)) + 2
    heading = " " * width + "".join(f"{name:>10}" for name in HEADINGS)
    cells = {name: _cells(name, rows, size) for name in rows}
    found = [f"{name:<{width}}" + "".join(f"{cell:>10}" for cell in [*cells[name], verifies[name]]) for name in rows]
    return [heading, *found, *(_targets(rows, size) if {OURS, BOTO3} <= rows.keys() else [])]


def _cells(name: str, rows: Mapping[str, Sequence[Run]], size: int) -> list[str]:
    runs, boto3 = rows[name], rows.get(BOTO3, ())
    seconds, on_disk = _median(runs, _seconds), _median(runs, _on_disk)
    cpu, server = _median(runs, _cpu) * GIB / size, _median(runs, lambda run: run.server_cpu_seconds) * GIB / size
    ratios = [f"{_median(boto3, of) / own:.2f}" if boto3 else "-" for of, own in ((_seconds, seconds), (_on_disk, on_disk))]
    speed, memory = f"{size / MIB / seconds:,.0f}", f"{max(map(_memory, runs)):,.0f}"
    return [f"{seconds:.2f}", speed, ratios[0], f"{cpu:.2f}", f"{server:.2f}", memory, f"{on_disk:.2f}", ratios[1]]


def _targets(rows: Mapping[str, Sequence[Run]], size: int) -> list[str]:
    ours = rows[OURS]
    ratio = _median(rows[BOTO3], _seconds) / _median(ours, _seconds)
    cpu, memory = _median(ours, _cpu) * GIB / size, max(map(_memory, ours))
    beside = f" beside {_median(rows[BARE], _cpu) * GIB / size:.2f} of the {BARE}" if BARE in rows else ""
    judged = (
        (f"{ratio:.2f} x boto3 (must >= {LEAST_RATIO:g})", ratio >= LEAST_RATIO),
        (f"{cpu:.2f} CPU-s/GiB{beside} (must <= {MOST_CPU:g})", cpu <= MOST_CPU),
        (f"{memory:.0f} MiB (must <= {MOST_MIB:g})", memory <= MOST_MIB),
    )
    return [f"{OURS}: " + "; ".join(f"{text}: {'yes' if reached else 'NO'}" for text, reached in judged)]


def _median(runs: Sequence[Run], of: Callable[[Run], float]) -> float:
    return median(map(of, runs))


def _seconds(run: Run) -> float:
    return run.spent.seconds


def _on_disk(run: Run) -> float:
    return run.on_disk_seconds


def _cpu(run: Run) -> float:
    return run.spent.cpu_seconds


def _memory(run: Run) -> float:
    return run.spent.peak_mib
