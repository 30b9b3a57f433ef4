"""The serving bench's tables, and the files that keep them."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.measuring import Row
from bench.targets import MINIMAL, TARGETS, Found, Target

RESULTS: Final = Path(__file__).parent / "results"
_HEADINGS: Final = ("clients", "req/s", "p50 ms", "p99 ms", "CPU us", "x minimal", "+p50 ms", "upstream", "RSS MB", "as meant")
_PACKAGES: Final = ("aiohttp", "uvloop", "orjson", "numpy", "faiss-cpu", "onnxruntime")


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    model = next((line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    packages = " ".join(f"{name}={version(name)}" for name in _PACKAGES)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return {"cpu": model, "cores": str(os.cpu_count()), "load before": load, "python": platform.python_version(), "packages": packages}


def text(found: Found, about: dict[str, str]) -> str:
    start = found.start
    started = f"start to first answer {start.first_answer_seconds:.2f} s, to ready {start.ready_seconds:.2f} s"
    head = "\n".join(f"{name}: {value}" for name, value in about.items())
    return "\n\n".join((head, ways_table(found), f"{started}; RSS idle {start.idle_rss_mb:.0f} MB", targets_table(found)))


def ways_table(found: Found) -> str:
    width = max(len(row.name) for row in found.rows)
    lines = [" " * width + "".join(f"{heading:>10}" for heading in _HEADINGS)]
    for row in found.rows:
        lines.append(f"{row.name:<{width}}" + "".join(f"{cell:>10}" for cell in _cells(found, row)))
    return "\n".join(lines)


def _cells(found: Found, row: Row) -> Sequence[str]:
    added = None if row.against is None else row.p50_ms - found.row(row.against, row.clients).p50_ms
    ratio = None if row.cpu_us is None else row.cpu_us / found.cpu(MINIMAL, row.clients)
    return (
        str(row.clients),
        f"{row.requests_per_second:,.0f}",
        f"{row.p50_ms:.2f}",
        f"{row.p99_ms:.2f}",
        _or_dash(row.cpu_us, ".0f"),
        _or_dash(ratio, ".2f"),
        _or_dash(added, ".2f"),
        f"{row.upstream_calls:.2f}",
        _or_dash(row.rss_mb, ".0f"),
        f"{row.as_meant:.1%}",
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def targets_table(found: Found) -> str:
    width = max(len(target.name) for target in TARGETS)
    lines = [f"{'target':<{width}}{'measured':>12}{'must':>12}{'reached':>9}{'goal':>12}{'reached':>9}"]
    return "\n".join([*lines, *(f"{target.name:<{width}}{_judged(found, target)}" for target in TARGETS)])


def _judged(found: Found, target: Target) -> str:
    try:
        value = target.measured(found)
    except KeyError:
        return f"{'left out':>12}"
    return f"{value:>9,.2f} {target.unit:<2}{_against(target, value, target.must)}{_against(target, value, target.goal)}"


def _against(target: Target, value: float, wanted: float | None) -> str:
    if wanted is None:
        return f"{'-':>12}{'-':>9}"
    sign = ">=" if target.least else "<="
    return f"{f'{sign} {wanted:,g}':>12}{'yes' if target.reached(value, wanted) else 'NO':>9}"


def save(found: Found, about: dict[str, str]) -> None:
    """As bench/results/serving.json and .txt."""
    RESULTS.mkdir(exist_ok=True)
    whole = {"machine": about, "start": asdict(found.start), "rows": [asdict(row) for row in found.rows]}
    (RESULTS / "serving.json").write_text(json.dumps(whole, indent=1) + "\n")
    (RESULTS / "serving.txt").write_text(text(found, about) + "\n")
