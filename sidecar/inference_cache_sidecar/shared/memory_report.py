"""What an operator should know of the memory of the shared store's servers. Pure; `watch` asks them, the admin port shows it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

FRAGMENTATION: Final = 1.5
FRAGMENTATION_FROM_BYTES: Final = 64 * 2**20
"""The process itself takes some 11 MiB beside its data: an empty Redis 7.0 shows a ratio of 14, one with 64 MiB 1.2 at best."""
NEARLY_FULL: Final = 0.9
OLDEST_VERSION: Final = (6, 2)


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """One server's memory."""

    used_bytes: int
    max_bytes: int = 0
    """0: no limit of its own."""
    policy: str = "noeviction"
    fragmentation_ratio: float = 1.0
    """Bytes that the system gave it, for each byte in use."""
    evicted: int = 0
    """Keys that made room within the last minute."""
    version: tuple[int, ...] = OLDEST_VERSION
    is_master: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """Two with the same name are one, whatever their text."""

    name: str
    level: Literal["info", "warning", "problem"]
    """A problem keeps the store from doing what it is for."""
    text: str


def findings(report: MemoryReport) -> list[Finding]:
    return [*_of_the_server(report), *_of_its_limit(report)]


def _of_the_server(report: MemoryReport) -> Iterable[Finding]:
    if report.version < OLDEST_VERSION:
        yield Finding("Unsupported", "problem", f"the server is older than {'.'.join(map(str, OLDEST_VERSION))}")
    if not report.is_master:
        yield Finding("ReadOnly", "problem", "the server is a replica: nothing can be stored")
    if report.fragmentation_ratio > FRAGMENTATION and report.used_bytes >= FRAGMENTATION_FROM_BYTES:
        yield Finding("Fragmented", "warning", f"mem_fragmentation_ratio is over {FRAGMENTATION}: activedefrag or a restart would help")


def _of_its_limit(report: MemoryReport) -> Iterable[Finding]:
    if report.max_bytes <= 0:
        yield Finding("Unlimited", "info", "maxmemory is not set: only the system's memory ends the store's growth")
        return
    keeps_all = report.policy == "noeviction"
    if report.used_bytes > NEARLY_FULL * report.max_bytes:
        then = "soon nothing more is stored" if keeps_all else "entries make room for new ones"
        yield Finding("NearlyFull", "problem" if keeps_all else "info", f"more than {NEARLY_FULL:.0%} of maxmemory is used: {then}")
    if keeps_all:
        yield Finding("NoEviction", "warning", "with maxmemory-policy noeviction a full store takes no more writes: consider volatile-lru")
    if report.policy.startswith("allkeys-"):
        yield Finding("EvictsAnything", "warning", f"maxmemory-policy {report.policy} may evict the streams of changes and events")
    if report.evicted > 0:
        yield Finding("Evicting", "warning", "entries are evicted before their time: a larger maxmemory would keep them")


def merged(reports: Sequence[MemoryReport]) -> list[Finding]:
    """Each finding once, as the first server has it, with how many have it."""
    found: dict[str, list[Finding]] = {}
    for report in reports:
        for finding in findings(report):
            found.setdefault(finding.name, []).append(finding)
    return [_counted(same, len(reports)) for same in found.values()]


def _counted(same: Sequence[Finding], servers: int) -> Finding:
    first = same[0]
    return first if servers == 1 else Finding(first.name, first.level, f"{first.text} ({len(same)} of {servers} servers)")


def read_report(info: Mapping[str, Any], evicted: int) -> MemoryReport:
    """From the reply to INFO, whatever kind of server wrote it: what it does not say counts as harmless."""
    return MemoryReport(
        used_bytes=int(number(info, "used_memory", 0)),
        max_bytes=int(number(info, "maxmemory", 0)),
        policy=str(info.get("maxmemory_policy", "noeviction")),
        fragmentation_ratio=number(info, "mem_fragmentation_ratio", 1.0),
        evicted=evicted,
        version=tuple(map(int, re.findall(r"\d+", str(info.get("redis_version", "")))[:3])) or OLDEST_VERSION,
        is_master=info.get("role", "master") == "master",
    )


def number(info: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = info.get(name)
    return value if isinstance(value, int | float) else otherwise
