"""Looks at the memory of the shared store's servers now and then, and logs what changes. Runs with the shared tier; the admin port shows
what it saw last."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.shared import scripts
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, translated
from inference_cache_sidecar.shared.memory_report import Finding, MemoryReport, merged, number, read_report
from inference_cache_sidecar.shared.servers import Servers

T = TypeVar("T")
Info = Mapping[str, Any]
PERIOD_SECONDS: Final = 10.0
EVICTION_LOOKS: Final = 6
"""Looks, a minute, for which an eviction is remembered: they come in bursts."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sight:
    """What the last look saw."""

    reports: Sequence[MemoryReport] = ()
    """Of every master; none if one of them did not answer."""
    findings: Sequence[Finding] = ()
    replicas: int | None = None
    """Sidecars that confirmed their epochs within the lease."""

    @property
    def up(self) -> bool:
        return bool(self.reports)

    @property
    def used_bytes(self) -> int | None:
        return sum(report.used_bytes for report in self.reports) if self.up else None

    @property
    def max_bytes(self) -> int | None:
        return sum(report.max_bytes for report in self.reports) if self.up else None

    @property
    def fragmentation_ratio(self) -> float | None:
        """Of the server where it is worst."""
        return max((report.fragmentation_ratio for report in self.reports), default=None)

    @property
    def policy(self) -> str | None:
        """Several where servers differ."""
        return ", ".join(dict.fromkeys(report.policy for report in self.reports)) or None


class StoreWatch:
    """Asks whether a breaker is open or not, and never opens one."""

    def __init__(self, servers: Servers, keys: Keyspace, lease_seconds: float) -> None:
        self._servers = servers
        self._replicas = keys.replicas()
        self._lease_ms = lease_seconds * 1000
        self._counters: dict[str, int] = {}
        """Each server's own count of evictions at the last look, by its run id."""
        self._bursts: dict[str, deque[int]] = {}
        self._told: dict[str, Finding] = {}
        self.sight = Sight()
        self.evicted = 0
        """Keys that made room since the first look."""

    async def run(self) -> None:
        """Never ends by itself."""
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self) -> None:
        try:
            self.sight = await self._looked()
        except StoreError as error:
            told = f"the store, or one of its servers, does not answer as it should ({error})"
            self.sight = Sight(findings=(Finding("Unreachable", "problem", told),))
        self._tell()

    async def _looked(self) -> Sight:
        masters = await _asked(self._servers.masters())
        infos: list[Info] = [await _asked(master.info()) for master in masters]
        reports = [read_report(info, count) for info, count in zip(infos, self._evicted_lately(infos), strict=True)]
        now, registered = await _asked(self._servers.client.eval(scripts.REPLICAS, 1, self._replicas))
        return Sight(reports, merged(reports), self._live(int(now), registered[1::2]))

    def _evicted_lately(self, infos: Sequence[Info]) -> list[int]:
        """For each server. One that is seen for the first time begins at nought."""
        counters = {str(info.get("run_id", place)): int(number(info, "evicted_keys", 0)) for place, info in enumerate(infos)}
        self._bursts = {server: self._bursts.get(server) or deque(maxlen=EVICTION_LOOKS) for server in counters}
        for server, counter in counters.items():
            more = max(0, counter - self._counters.get(server, counter))
            self._bursts[server].append(more)
            self.evicted += more
        self._counters = counters
        return [sum(burst) for burst in self._bursts.values()]

    def _live(self, now: int, registered: Iterable[bytes]) -> int:
        return sum(now - int(value.split(b" ", 1)[0]) <= self._lease_ms for value in registered)

    def _tell(self) -> None:
        """What is new, and what is over. While the store does not answer, what it said last is neither."""
        now = {finding.name: finding for finding in self.sight.findings}
        for finding in now.values():
            if finding.name not in self._told:
                _log.log(logging.INFO if finding.level == "info" else logging.WARNING, "shared store: %s", finding.text)
        if not self.sight.up:
            self._told |= now
            return
        for finding in self._told.values():
            if finding.name not in now:
                _log.info("shared store, no longer so: %s", finding.text)
        self._told = now


async def _asked(asking: Awaitable[T]) -> T:
    with translated():
        async with asyncio.timeout(SLOW_SECONDS):
            return await asking
