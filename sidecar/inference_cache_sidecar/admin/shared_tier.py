"""What the admin port shows of the shared tier: its part of `/status`, and its metrics. Called by `administration`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from inference_cache_contract.endpoints import ENCRYPTION_KEYS_VARIABLE, REDIS_URL_VARIABLE
from inference_cache_sidecar.admin.services import SharedStatus
from inference_cache_sidecar.coalescing.coalescer import CoalescingCounts
from inference_cache_sidecar.exposition import Counter, Counters, Gauge, Reading
from inference_cache_sidecar.settings import ADDRESS_FIELD, ENCRYPTION_KEY_FIELD
from inference_cache_sidecar.shared.calls import CallCounts
from inference_cache_sidecar.shared.entries import EntryCounts
from inference_cache_sidecar.shared.memory_report import Finding
from inference_cache_sidecar.shared.tier import SharedTier
from inference_cache_sidecar.shared.watch import StoreWatch
from inference_cache_sidecar.store.tiered import TieredStore, Warming

_ENTRY_COUNTERS = {
    "hits": "Entries that the shared store had.",
    "misses": "Entries that it had not.",
    "stored": "Entries stored in it.",
    "failed": "Entries that it was asked for, or to store, and did not.",
    "unreadable": "Values in it that were no entries: of another version, or with other encryption keys.",
}
_CALL_COUNTERS = {
    "made": "Calls of the shared store.",
    "failed": "Calls of the shared store that failed.",
    "late": "Of the failed calls, those past their deadline.",
    "refused": "Calls of the shared store not made: it was given a rest, or too many waited.",
}


@dataclass(frozen=True, slots=True)
class SharedView:
    tier: SharedTier
    store: TieredStore
    watch: StoreWatch
    coalescing: CoalescingCounts

    @property
    def breaker_open(self) -> bool:
        return self.tier.calls.breaker.is_open or self.tier.hot.breaker_open

    @property
    def healthy(self) -> bool:
        """Answers, and shares what it is for."""
        sight = self.watch.sight
        troubled = any(finding.level == "problem" for finding in sight.findings)
        return sight.up and self.tier.epochs.confirmed and not self.breaker_open and not troubled

    def status(self, more: Sequence[Finding]) -> SharedStatus:
        """`more` is found elsewhere: problems that are not the store's own."""
        sight = self.watch.sight
        return SharedStatus(
            kind=self.tier.calls.servers.address.kind,
            healthy=self.healthy and not more,
            findings=[*sight.findings, *more],
            epochs_confirmed=self.tier.epochs.confirmed,
            breaker_open=self.breaker_open,
            replicas=sight.replicas,
            used_memory=sight.used_bytes,
            max_memory=sight.max_bytes,
            policy=sight.policy,
            fragmentation_ratio=sight.fragmentation_ratio,
            warming=self.store.warming,
        )

    def readings(self) -> Iterator[Reading]:
        yield from self._of_the_servers()
        yield from self._of_the_calls()
        epochs = self.tier.epochs
        yield Gauge("shared_epochs_confirmed", "1 while flushes elsewhere are known here.", lambda: float(epochs.confirmed))
        yield Counter("shared_epoch_losses", "How often the shared store was found to have lost flushes.", lambda: epochs.losses)
        yield Gauge("shared_warming_done", "1 once all entries of the shared store are taken in.", lambda: float(self.store.warming.done))
        yield Gauge("shared_warming_loaded", "Entries taken in to be found by similarity.", lambda: self.store.warming.loaded)

    def _of_the_servers(self) -> Iterator[Reading]:
        watch = self.watch
        yield Gauge("shared_store_up", "1 if all servers of the shared store answered when last asked.", lambda: float(watch.sight.up))
        yield Gauge("shared_store_used_bytes", "used_memory of its masters.", lambda: watch.sight.used_bytes)
        yield Gauge("shared_store_max_bytes", "maxmemory of its masters; 0: none.", lambda: watch.sight.max_bytes)
        worst = "The highest mem_fragmentation_ratio of its masters."
        yield Gauge("shared_store_fragmentation_ratio", worst, lambda: watch.sight.fragmentation_ratio)
        yield Counter("shared_store_evicted", "Keys that its servers evicted while this process watched.", lambda: watch.evicted)
        yield Gauge("shared_replicas", "Sidecars that share the store and confirmed their epochs lately.", lambda: watch.sight.replicas)

    def _of_the_calls(self) -> Iterator[Reading]:
        entries, hot, others = self.tier.entries.counts, self.tier.hot.counts, self.tier.calls.counts
        for name, text in _ENTRY_COUNTERS.items():
            yield Counter(f"shared_entries_{name}", text, _number(entries, name))
        for name, text in _CALL_COUNTERS.items():
            yield Counters(f"shared_calls_{name}", text, "kind", _by_kind(hot, others, name))
        flown = "Answers asked of upstream or of another replica, by what became of them."
        yield Counters("shared_flights", flown, "outcome", lambda: {name: float(count) for name, count in asdict(self.coalescing).items()})
        rest = "1 while the shared store, or a server of it, is given a rest."
        yield Gauge("shared_breaker_open", rest, lambda: float(self.breaker_open))


def unshared(findings: Sequence[Finding]) -> SharedStatus | None:
    """Of a store that there should be, and is not; None where nothing is found to be missing."""
    if not findings:
        return None
    return SharedStatus(
        kind="none",
        healthy=False,
        findings=findings,
        epochs_confirmed=False,
        breaker_open=False,
        replicas=None,
        used_memory=None,
        max_memory=None,
        policy=None,
        fragmentation_ratio=None,
        warming=Warming(),
    )


def missing(secrets: Sequence[str]) -> list[Finding]:
    """What it means for the shared store that these fields name secrets which did not come."""
    told = {
        ENCRYPTION_KEY_FIELD: Finding("NoEncryptionKey", "problem", f"{ENCRYPTION_KEYS_VARIABLE} is empty: nothing is shared unencrypted"),
        ADDRESS_FIELD: Finding("NoAddress", "problem", f"{REDIS_URL_VARIABLE} is empty: nothing is shared"),
    }
    return [finding for field, finding in told.items() if field in secrets]


def _number(counts: EntryCounts, name: str) -> Callable[[], float]:
    return lambda: float(getattr(counts, name))


def _by_kind(hot: CallCounts, others: CallCounts, name: str) -> Callable[[], dict[str, float]]:
    """`hot`: what a client waits for."""
    return lambda: {"hot": getattr(hot, name), "other": getattr(others, name)}
