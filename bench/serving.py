"""How fast: direct, nginx, a minimal proxy and the sidecar, side by side in one run.

    python -m bench.serving [--quick] [--save]

Prints a line for every way at 1 and 32 clients, then the targets. Ends with status 1 if an answer failed, or fewer than
95 % of a way's answers were what it is named after. How it is measured: bench/README.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.request import Request, urlopen

import numpy as np

from bench import questions, report, startup, targets
from bench.load import Wrk
from bench.measuring import Row, Way, always, in_turn, measure, never_asked
from bench.servers import Server, Servers
from inference_cache_contract.canonical import Normalize, canonical
from inference_cache_sidecar.embedder.loading import load_embedder
from inference_cache_sidecar.placing import REMEMBERED

EMBEDDER: Final = "all-MiniLM-L6-v2"
QUESTIONS: Final = 3000
REPEATED: Final = 500
assert REPEATED < REMEMBERED < QUESTIONS, "asked in turn, few requests are all remembered as placed, many never are"
PATIENT: Final = ("--semantic-embedder-deadline", "10s")
"""32 clients that all want a vector from one core wait longer than the default 50 ms, after which they would be misses."""
LEAST_SHARE: Final = 0.95


@dataclass(frozen=True)
class Plan:
    seconds: int
    rounds: int
    sizes: tuple[int, ...]
    starts: int


FULL: Final = Plan(seconds=5, rounds=3, sizes=(1_000, 10_000, 100_000), starts=5)
QUICK: Final = Plan(seconds=1, rounds=1, sizes=(1_000, 10_000), starts=2)


@dataclass(frozen=True)
class Bench:
    plan: Plan
    servers: Servers
    upstream: Server
    wrk: Wrk
    folder: Path

    def passing(self) -> list[Row]:
        """What goes to upstream, and repeats."""
        upstream = self.upstream
        exact_only, both = self.servers.sidecar(upstream, "--semantic-mode", "Off"), self.servers.sidecar(upstream, *PATIENT)
        sampled = always(questions.body(questions.stored(0), temperature=0.7))
        new = never_asked(questions.numbered, 15_000)
        rephrasable = never_asked(lambda number: questions.body(questions.stored(number)), 3_000)
        repeated = [questions.body(questions.stored(number)) for number in range(QUESTIONS)]
        _ask_all(exact_only, repeated)
        ways = [
            Way(targets.DIRECT, upstream, "none", sampled),
            Way(targets.NGINX, self.servers.nginx(upstream), "none", sampled, targets.DIRECT),
            Way(targets.MINIMAL, self.servers.minimal(upstream), "none", sampled, targets.DIRECT),
            Way(targets.BYPASS, both, "bypass", sampled, targets.DIRECT),
            Way(targets.NEW_DIRECT, upstream, "none", new),
            Way(targets.MISS_EXACT, exact_only, "miss", new, targets.NEW_DIRECT),
            Way(targets.MISS, both, "miss", rephrasable, targets.NEW_DIRECT),
            Way(targets.REPEAT, exact_only, "exact", in_turn(repeated[:REPEATED])),
            Way(targets.OLDER_REPEAT, exact_only, "exact", in_turn(repeated)),
        ]
        return self._measured(ways)

    def rephrasing(self) -> list[Row]:
        """Semantic hits in scopes of several sizes; the same questions in each, as far as they are stored."""
        vectors = _vectors(self.folder / "vectors.npy")
        ways = []
        for entries in self.plan.sizes:
            known = min(entries, QUESTIONS)
            asked = [questions.body(questions.rephrased(number % known, number % known + number // known)) for number in range(QUESTIONS)]
            server = self.servers.prefilled(self.upstream, entries, vectors, *PATIENT)
            ways.append(Way(targets.similar(entries), server, "semantic", in_turn(asked)))
        return self._measured(ways)

    def _measured(self, ways: Sequence[Way]) -> list[Row]:
        return measure(self.wrk, self.upstream, ways, self.plan.rounds, self.plan.seconds)


def _ask_all(server: Server, bodies: Sequence[bytes]) -> None:
    for body in bodies:
        with urlopen(Request(server.url + questions.CHAT, body, questions.HEADERS), timeout=10) as answer:
            answer.read()


def _vectors(file: Path) -> Path:
    """Those of the questions that will be asked in other words."""
    texts = [canonical(questions.stored(number), Normalize()) for number in range(QUESTIONS)]
    vectors = [vector for vector in load_embedder(EMBEDDER).embed(texts) if vector is not None]
    assert len(vectors) == len(texts)
    np.save(file, np.stack(vectors))
    return file


def run(plan: Plan, folder: Path) -> targets.Found:
    """Each group with its own processes; upstream is one for all."""
    with ExitStack() as stack:
        servers = Servers(stack, folder)
        upstream = servers.upstream()
        start = startup.measure(upstream, folder, plan.starts)
        rows: list[Row] = []
        for group in (Bench.passing, Bench.rephrasing):
            with ExitStack() as group_stack:
                own = Servers(group_stack, folder)
                rows += group(Bench(plan, own, upstream, Wrk(folder, own.beside), folder))
        return targets.Found(rows, start)


def wrong(found: targets.Found) -> list[str]:
    """Why the figures must not be believed."""
    failed = [f"{row.name}, {row.clients} clients: {row.errors} requests failed" for row in found.rows if row.errors]
    strange = [row for row in found.rows if row.as_meant < LEAST_SHARE]
    return failed + [f"{row.name}, {row.clients} clients: only {row.as_meant:.1%} of the answers were that" for row in strange]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="windows of a second, once, up to 10,000 entries: does it work?")
    parser.add_argument("--save", action="store_true", help=f"keep the outcome in {report.RESULTS.name}/")
    options = parser.parse_args()
    about = report.machine()
    with tempfile.TemporaryDirectory() as folder:
        found = run(QUICK if options.quick else FULL, Path(folder))
    print(report.text(found, about))
    problems = wrong(found)
    print("\n".join(problems), file=sys.stderr)
    if options.save and not problems:
        report.save(found, about)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
