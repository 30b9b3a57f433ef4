"""Windows of load on several ways in turn, over and over, and the median of each. Called by the serving bench."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final
from urllib.request import urlopen

from bench import questions
from bench.load import Window, Wrk
from bench.servers import Server

CLIENTS: Final = (1, 32)
WARM_SECONDS: Final = 1


@dataclass
class Way:
    """One way to an answer, and what its answers must be by their `Cache-Status`."""

    name: str
    server: Server
    kind: str
    bodies: Callable[[int, int], list[bytes]]
    """Of (number of the first, seconds they must last)."""
    against: str | None = None
    """The way whose p50 is taken off to see what was added."""
    asked: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One way at one number of clients: medians, but the worst `as_meant`."""

    name: str
    clients: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float | None
    """User and system time of what stands in between, per request; None for direct."""
    upstream_calls: float
    """Per request."""
    rss_mb: float | None
    as_meant: float
    """Share of the answers that were of the way's kind."""
    errors: int
    against: str | None


@dataclass
class _Seen:
    windows: list[Window] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)


def measure(wrk: Wrk, upstream: Server, ways: Sequence[Way], rounds: int, seconds: int) -> list[Row]:
    """Every way once a round, so that what disturbs the machine disturbs all."""
    for way in ways:
        _window(wrk, way, CLIENTS[-1], WARM_SECONDS)
    seen = {(way.name, clients): _Seen() for way in ways for clients in CLIENTS}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}: {ways[0].name} … {ways[-1].name}", file=sys.stderr)
        for clients in CLIENTS:
            for way in ways:
                _observe(wrk, upstream, way, clients, seconds, seen[way.name, clients])
    return [_row(way, clients, seen[way.name, clients]) for way in ways for clients in CLIENTS]


def _observe(wrk: Wrk, upstream: Server, way: Way, clients: int, seconds: int, seen: _Seen) -> None:
    spent, calls = way.server.cpu_seconds(), _calls(upstream)
    window = _window(wrk, way, clients, seconds)
    answered = max(1, window.requests)
    seen.cpu_us.append((way.server.cpu_seconds() - spent) / answered * 1e6)
    seen.calls.append((_calls(upstream) - calls) / answered)
    seen.windows.append(window)


def _window(wrk: Wrk, way: Way, clients: int, seconds: int) -> Window:
    window = wrk.run(way.server.url, way.bodies(way.asked, seconds), clients, seconds)
    way.asked += window.sent
    return window


def _calls(upstream: Server) -> int:
    """Inferences that upstream has counted."""
    with urlopen(f"{upstream.url}/standin/calls", timeout=10) as answer:
        counted: dict[str, int] = json.load(answer)["calls"]
    return counted.get(questions.CHAT, 0)


def _row(way: Way, clients: int, seen: _Seen) -> Row:
    windows = seen.windows
    return Row(
        name=way.name,
        clients=clients,
        requests_per_second=median(window.requests / window.seconds for window in windows),
        p50_ms=median(window.p50_ms for window in windows),
        p99_ms=median(window.p99_ms for window in windows),
        cpu_us=median(seen.cpu_us) if way.server.process else None,
        upstream_calls=median(seen.calls),
        rss_mb=way.server.rss_mb() if way.server.process else None,
        as_meant=min(window.kinds.get(way.kind, 0) / max(1, window.requests) for window in windows),
        errors=sum(window.errors for window in windows),
        against=way.against,
    )


def always(body: bytes) -> Callable[[int, int], list[bytes]]:
    return lambda _start, _seconds: [body]


def in_turn(bodies: Sequence[bytes]) -> Callable[[int, int], list[bytes]]:
    """Over and over, each window where the last one ended."""

    def turned(start: int, _seconds: int) -> list[bytes]:
        at = start % len(bodies)
        return [*bodies[at:], *bodies[:at]]

    return turned


def never_asked(body: Callable[[int], bytes], per_second: int) -> Callable[[int, int], list[bytes]]:
    """`per_second` must be more than can be answered: what is asked twice is no miss, and the bench fails."""
    return lambda start, seconds: [body(number) for number in range(start, start + per_second * seconds)]
