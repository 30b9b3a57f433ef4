"""What a second start pays, when all files are there."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from bench.artifacts.places import Served, requests
from bench.artifacts.spending import spent
from bench.artifacts.tools import BUCKET, FOLDER, fetch

RUNS: Final = 40
MOST_MS: Final = 150.0


def lines(served: Served, folder: Path, log: Path) -> Sequence[str]:
    """One cold fetch, then as many warm ones."""
    command, environment = fetch(served.place, folder, f"s3://{BUCKET}/{FOLDER}/"), served.place.environment
    spent(command, environment, log)
    before = requests(served)
    runs = [spent(command, environment, log) for _ in range(RUNS)]
    asked = requests(served) - before
    milliseconds = [run.seconds * 1000 for run in runs]
    p95 = quantiles(milliseconds, n=20, method="inclusive")[-1]
    reached = "yes" if p95 <= MOST_MS and not asked else "NO"
    cpu = median(run.cpu_seconds for run in runs) * 1000
    times = f"p50 {median(milliseconds):.0f} ms, p95 {p95:.0f} ms (must <= {MOST_MS:g}), {cpu:.0f} ms of CPU"
    return [f"{RUNS} runs: {times}, {max(run.peak_mib for run in runs):.0f} MiB; {asked} requests to the source (must be 0): {reached}"]
