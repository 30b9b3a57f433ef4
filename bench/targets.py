"""What the serving bench must reach, what it should, and whether it does. Ratios are taken within one run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.measuring import Row
from bench.startup import Start

DIRECT: Final = "direct"
NEW_DIRECT: Final = "direct, new questions"
NGINX: Final = "nginx proxy_pass"
MINIMAL: Final = "minimal aiohttp proxy"
BYPASS: Final = "sidecar: pass-through"
MISS_EXACT: Final = "sidecar: miss, exact tier only"
MISS: Final = "sidecar: miss, both tiers"
REPEAT: Final = "sidecar: exact hit"
OLDER_REPEAT: Final = "sidecar: exact hit, of 3,000"


def similar(entries: int) -> str:
    return f"sidecar: semantic hit, {entries:,}"


@dataclass(frozen=True, slots=True)
class Found:
    """All that was measured, to be asked for by name."""

    rows: Sequence[Row]
    start: Start

    def row(self, name: str, clients: int) -> Row:
        """Raises KeyError for what a short run leaves out."""
        for row in self.rows:
            if (row.name, row.clients) == (name, clients):
                return row
        raise KeyError(name)

    def cpu(self, name: str, clients: int = 32) -> float:
        spent = self.row(name, clients).cpu_us
        assert spent is not None
        return spent


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    unit: str
    measured: Callable[[Found], float]
    must: float | None
    goal: float | None
    least: bool = False
    """`must` is a floor, else a ceiling."""

    def reached(self, value: float, wanted: float) -> bool:
        return value >= wanted if self.least else value <= wanted


def _added(found: Found, name: str, against: str) -> float:
    """To the p50 at one client, in ms."""
    return found.row(name, 1).p50_ms - found.row(against, 1).p50_ms


TARGETS: Final = (
    Target("pass-through, CPU over the minimal proxy's", "x", lambda f: f.cpu(BYPASS) / f.cpu(MINIMAL), 1.4, None),
    Target("pass-through, CPU per request", "us", lambda f: f.cpu(BYPASS), None, 60),
    Target("pass-through, added p50, 1 client", "ms", lambda f: _added(f, BYPASS, DIRECT), 0.3, 0.1),
    Target("exact-tier miss, CPU over the minimal proxy's", "x", lambda f: f.cpu(MISS_EXACT) / f.cpu(MINIMAL), 1.4, None),
    Target("exact hit, 32 clients", "/s", lambda f: f.row(REPEAT, 32).requests_per_second, 15_000, 25_000, least=True),
    Target("exact hit, p99, 32 clients", "ms", lambda f: f.row(REPEAT, 32).p99_ms, 5, None),
    Target("semantic hit, p50, 10,000 entries, 1 client", "ms", lambda f: f.row(similar(10_000), 1).p50_ms, 5, 2),
    Target("semantic hit, 100,000 entries over 10,000", "ms", lambda f: _added(f, similar(100_000), similar(10_000)), 1, None),
    Target("start to first answer", "s", lambda f: f.start.first_answer_seconds, 1.5, 0.7),
    Target("RSS idle", "MB", lambda f: f.start.idle_rss_mb, 300, None),
)
