"""How fast model files come here, and at what cost: ours beside cp, curl, boto3, s5cmd and KServe's downloader, in one run.

    python -m bench.artifacts [--quick] [--rounds 3] [--only ours] [--save]

One artifact of 1 x 1 GiB and 8 x 128 MiB over loopback; all tools in turn, the medians of the rounds. How it is measured: bench/README.md.
Ends with status 1 if a tool left other files than there were.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import report
from bench.artifacts import handover, places, table, warm
from bench.artifacts.places import Artifact, Served
from bench.artifacts.spending import Spent, have_memory, spent
from bench.artifacts.tools import Tool, tools

SIZES: Final = (1024, *[128] * 8)
QUICK: Final = (64, *[16] * 8)
MEMORY: Final = Path("/dev/shm")
MEMORY_BYTES: Final = 4 << 30


@dataclass(frozen=True)
class Bench:
    artifact: Artifact
    tools: Sequence[Tool]
    rounds: int
    scratch: Path
    wrong: list[str] = field(default_factory=list)

    def compare(self, served: Served, where: Path) -> list[str]:
        """Everything in turn, over and over."""
        rows: dict[str, list[table.Run]] = {tool.name: [] for tool in self.tools}
        for number in range(self.rounds):
            for tool in self.tools:
                print(f"{served.name}, {where.name}: {number + 1} of {self.rounds}: {tool.name} …", file=sys.stderr)
                rows[tool.name].append(self._run(tool, served, where, hashed=number == 0))
        return table.lines(rows, self.artifact.size, {tool.name: tool.verifies for tool in self.tools})

    def _run(self, tool: Tool, served: Served, where: Path, hashed: bool) -> table.Run:
        with _emptied(where) as folder:
            have_memory(folder, self.artifact.size)
            before = served.cpu_seconds()
            cost = spent(tool.command(served.place, folder), served.place.environment, self.scratch / "log")
            on_disk = _synced(cost)
            if not self.artifact.is_in(folder / tool.result, hashed):
                self.wrong.append(f"{tool.name}, {served.name}: left other files than there were")
            return table.Run(cost, served.cpu_seconds() - before, on_disk)


def _synced(cost: Spent) -> float:
    """Until all of it would survive a power failure."""
    began = time.perf_counter()
    os.sync()
    return cost.seconds + time.perf_counter() - began


@contextmanager
def _emptied(where: Path) -> Iterator[Path]:
    folder = where / "target"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _run(bench: Bench, targets: dict[str, Path], servers: Sequence[str]) -> list[str]:
    lines: list[str] = []
    opened = {"static": places.static, "weed": places.weed}
    for name in servers:
        with opened[name](bench.artifact, bench.scratch) as served:
            for kind, where in targets.items():
                lines += [f"\n{served.name}, to {kind}", *bench.compare(served, where)]
            if name == "static":
                with _emptied(targets["disk"]) as folder:
                    lines += ["\nwarm: `inference-cache fetch` of what is there", *warm.lines(served, folder, bench.scratch / "log")]
                lines += ["\nby the agent of the node", *handover.lines(bench.artifact, served, targets["disk"], bench.rounds)]
    return lines


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.artifacts", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small files, one round: does it work?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="tools whose names have one of these, parted by commas")
    parser.add_argument("--servers", default="static,weed", help="some of %(default)s")
    parser.add_argument("--disk-only", action="store_true", help="not to memory as well")
    parser.add_argument("--save", action="store_true", help=f"keep the outcome in {report.RESULTS.name}/")
    return parser.parse_args()


def _targets(folder: Path, memory: Path | None) -> dict[str, Path]:
    found = {"disk": folder / "disk"} | ({} if memory is None else {"memory (tmpfs)": memory / "memory"})
    for each in found.values():
        each.mkdir()
    return found


def main() -> int:
    options = _options()
    chosen = [tool for tool in tools() if any(name in tool.name for name in options.only.split(","))]
    has_memory = not options.disk_only and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    about = [f"{name}: {value}" for name, value in report.machine().items() if name != "packages"]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir=MEMORY if has_memory else None) as memory:
        artifact = places.made(Path(folder) / "source", QUICK if options.quick else SIZES)
        bench = Bench(artifact, chosen, 1 if options.quick else options.rounds, Path(folder))
        lines = _run(bench, _targets(Path(folder), Path(memory) if has_memory else None), options.servers.split(","))
    rounds = f"{artifact.size / (1 << 30):.2f} GiB in {len(artifact.files)} files; medians of {bench.rounds} rounds, all tools in turn"
    text = "\n".join([*about, rounds, *lines, *bench.wrong]) + "\n"
    print(text, end="")
    if options.save:
        (report.RESULTS / "artifacts.txt").write_text(text)
    return 1 if bench.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
