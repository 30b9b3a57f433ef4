"""What the shared store costs and stands: hits from Redis, a purge beside traffic, a Redis that hangs, a warm start.

    python -m bench.shared [--quick] [--only hits,purge,hang,warm] [--save]

Each part starts its own redis-server and sidecars and prints its figures beside the reference taken in the same run.
How it is measured: bench/README.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench import questions, report, shared_faults
from bench.load import Window, Wrk
from bench.measuring import in_turn
from bench.servers import Server, Servers, cores
from inference_cache_toolkit.redis_server import RedisServer, redis_server

CACHE: Final = "bench"
QUESTIONS: Final = 60_000
"""Each asked once of a sidecar that has just begun, so that all come from Redis."""
FEW: Final = 500
"""Repeated questions: all are remembered as placed."""
EXACT: Final = ("--semantic-mode", "Off")
WARM_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Plan:
    seconds: int
    rounds: int
    purged: int
    """Keys of an old version, in all purges together."""
    warmed: int


FULL: Final = Plan(seconds=5, rounds=5, purged=1_000_000, warmed=100_000)
QUICK: Final = Plan(seconds=1, rounds=2, purged=50_000, warmed=10_000)


@dataclass(frozen=True)
class Bench:
    plan: Plan
    servers: Servers
    redis: RedisServer
    upstream: Server
    wrk: Wrk
    folder: Path

    def sidecar(self, *flags: str) -> Server:
        return self.servers.sidecar(self.upstream, "--cache-name", CACHE, *flags, redis_url=self.redis.url)

    def fill(self, version: str, count: int, *options: str) -> None:
        command = [sys.executable, "-m", "bench.store_filling", self.redis.url, CACHE, version, str(count), *options]
        subprocess.run(command, check=True)

    def hits(self) -> list[str]:
        """Exact hits that only Redis has, beside a GET alone."""
        reference = [*cores()[0], sys.executable, "-m", "bench.redis_reference", self.redis.url, str(self.plan.seconds)]
        gets = json.loads(subprocess.run(reference, check=True, stdout=subprocess.PIPE, text=True).stdout)
        lines = [f"GET by {name:<16} {found['per_second']:>10,.0f} /s {found['cpu_us']:>8.1f} us of CPU" for name, found in gets.items()]
        bodies = [questions.numbered(number) for number in range(QUESTIONS)]
        first = self.sidecar(*EXACT)
        shared_faults.ask_all(first, bodies)
        lines.append(_hits("from memory", self._windows(first, lambda number: bodies[:FEW])))
        lines.append(_hits("from memory, others each", self._windows(first, lambda number: bodies[number * self.plan.seconds * FEW :])))
        lines.append(_hits("from Redis", self._windows(self.sidecar(*EXACT), self._unasked(bodies))))
        return lines

    def _unasked(self, bodies: Sequence[bytes]) -> Callable[[int], Sequence[bytes]]:
        """A share of the bodies for each window."""
        share = len(bodies) // (self.plan.rounds + 1)
        return lambda number: bodies[number * share : (number + 1) * share]

    def _windows(self, server: Server, bodies: Callable[[int], Sequence[bytes]]) -> list[tuple[Window, float]]:
        """Windows, each with the CPU time of a request in µs; the first one is not counted."""
        found = []
        for number in range(self.plan.rounds + 1):
            spent = server.cpu_seconds()
            window = self.wrk.run(server.url, bodies(number), 32, 1)
            assert window.sent <= len(bodies(number)) or len(bodies(number)) == FEW, "a question was asked twice"
            found.append((window, (server.cpu_seconds() - spent) / max(1, window.requests) * 1e6))
        return found[1:]

    def purge(self) -> list[str]:
        """p99 of hits without and with a purge running, in turn; then whether only what was meant is gone."""
        server = self.sidecar(*EXACT)
        bodies = [questions.numbered(number) for number in range(500)]
        each = self.plan.purged // self.plan.rounds
        for number in range(self.plan.rounds):
            self.fill(f"old{number}", each)
        self.fill("kept", 10_000)
        asked = in_turn(bodies)
        self.wrk.run(server.url, asked(0, 1), 32, 2)
        quiet, busy, lines = [], [], []
        for number in range(self.plan.rounds):
            quiet.append(self.wrk.run(server.url, asked(0, 1), 8, self.plan.seconds))
            with shared_faults.purging(server, f"old{number}") as purge:
                busy.append(self.wrk.run(server.url, asked(0, 1), 8, self.plan.seconds))
                running = purge.running()
            whole = "" if running else "NOT "
            lines.append(f"old{number}: {purge.deleted:,} of {each:,} deleted in {purge.seconds:.1f} s; {whole}running all the window")
        before, during = median(w.p99_ms for w in quiet), median(w.p99_ms for w in busy)
        with self.redis.client() as client:
            kept = sum(1 for _ in client.scan_iter(match="*:kept:*", count=1000))
            old = sum(1 for _ in client.scan_iter(match="*:old?:*", count=1000))
        grown = f"p99 of hits, 8 clients: {before:.2f} ms, with a purge {during:.2f} ms: {during / before - 1:+.0%} (must <= +20%)"
        return [*lines, grown, f"left of the old versions: {old}; of another version: {kept:,} of 10,000"]

    def hang(self) -> list[str]:
        """What requests take while Redis is stopped: misses, since nothing can be found; and again once it goes on."""
        return shared_faults.hang(self.sidecar(*EXACT), self.redis, self.plan.seconds)

    def warm(self) -> list[str]:
        """From the start of a sidecar until all that Redis holds is found by similarity."""
        self.fill("", self.plan.warmed, "--vectors")
        server = self.sidecar("--store-memory-max-bytes", "1Gi")
        warming = shared_faults.warmed(server, WARM_SECONDS)
        loaded = f"{warming['loaded']:,} of {warming['scanned']:,} entries found by similarity"
        return [f"{loaded} {server.age_seconds():.1f} s after the process began (must <= 10 s for 100,000)"]


def _hits(name: str, windows: Sequence[tuple[Window, float]]) -> str:
    exact = min(window.kinds.get("exact", 0) / max(1, window.requests) for window, _ in windows)
    per_second = median(window.requests / window.seconds for window, _ in windows)
    p50, p99 = (median(getattr(window, name) for window, _ in windows) for name in ("p50_ms", "p99_ms"))
    cpu = median(cpu for _, cpu in windows)
    return f"hit {name:<26} {per_second:>8,.0f} /s {cpu:>8.1f} us of CPU {p50:>6.2f} ms p50 {p99:>6.2f} ms p99 {exact:>7.1%} hits"


PARTS: Final[dict[str, Callable[[Bench], list[str]]]] = {"hits": Bench.hits, "purge": Bench.purge, "hang": Bench.hang, "warm": Bench.warm}


def run(plan: Plan, names: Sequence[str], folder: Path) -> list[str]:
    lines: list[str] = []
    for name in names:
        print(f"{name} …", file=sys.stderr)
        with ExitStack() as stack:
            own = folder / name
            own.mkdir()
            servers = Servers(stack, own)
            redis = stack.enter_context(redis_server(own / "redis", via=tuple(servers.beside)))
            bench = Bench(plan, servers, redis, servers.upstream(), Wrk(own, servers.beside), own)
            lines += [f"\n{name}: {(PARTS[name].__doc__ or '').splitlines()[0]}", *PARTS[name](bench)]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="short windows and small stores: does it work?")
    parser.add_argument("--only", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--save", action="store_true", help=f"keep the outcome in {report.RESULTS.name}/")
    options = parser.parse_args()
    about = [f"{name}: {value}" for name, value in report.machine().items()]
    with tempfile.TemporaryDirectory() as folder:
        lines = run(QUICK if options.quick else FULL, options.only.split(","), Path(folder))
    print("\n".join([*about, *lines]))
    if options.save:
        (report.RESULTS / "shared.txt").write_text("\n".join([*about, *lines]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
