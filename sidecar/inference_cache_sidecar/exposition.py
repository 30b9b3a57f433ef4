"""Shows the counters, and what is read only when somebody scrapes, as Prometheus metrics.

`app` makes the registry, the admin port serves it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inference_cache_sidecar.counting import Counts, Histogram
from inference_cache_sidecar.metrics import ENDPOINT_LABELS, Metrics
from inference_cache_sidecar.store.protocol import StoreStats

VERSION: Final = version("inference-cache")
_PREFIX: Final = "inference_cache_"
_STORE_GAUGES: Final = {
    "entries": "Entries in the store.",
    "vectors": "Vectors in the index.",
    "max_bytes": "The store's hard cap.",
    "used_bytes": "All that the cap counts: entries, index, scopes, overhead.",
    "entry_bytes": "Bytes of entries that a lookup can reach.",
}
_STORE_COUNTERS: Final = {
    "stored": "Entries stored.",
    "evicted": "Entries that made room for others.",
    "expired": "Entries whose time was over.",
    "flushed": "Entries that a flush made unreachable.",
    "refused": "Entries not taken in: too large, or worth less than what was there.",
}


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number read at every scrape; `name` without the common prefix."""

    name: str
    help: str
    read: Callable[[], float | None]
    """None while it is not known: it is then left out."""


@dataclass(frozen=True, slots=True)
class Counter:
    """A number that only grows, read at every scrape."""

    name: str
    help: str
    read: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Counters:
    """As `Counter`, with a number for each value of `label`."""

    name: str
    help: str
    label: str
    read: Callable[[], Mapping[str, float]]


Reading = Gauge | Counter | Counters


def registry(metrics: Metrics, store: Callable[[], StoreStats], more: Iterable[Reading] = ()) -> CollectorRegistry:
    """A registry of its own, with this process's memory and descriptors beside ours."""
    made = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=made)
    made.register(_Exposition(metrics, store, tuple(more)))
    return made


class _Exposition(Collector):
    def __init__(self, metrics: Metrics, store: Callable[[], StoreStats], more: tuple[Reading, ...]) -> None:
        self._metrics = metrics
        self._store = store
        self._more = more

    def collect(self) -> Iterator[Metric]:
        yield from _of_requests(self._metrics)
        yield from _of_the_semantic_tier(self._metrics)
        yield from _of_the_store(self._metrics, self._store())
        for reading in self._more:
            yield from _read(reading)
        info = GaugeMetricFamily(_PREFIX + "build_info", "The running version.", labels=["version"])
        info.add_metric([VERSION], 1)
        yield info


def _read(reading: Reading) -> Iterator[Metric]:
    name = _PREFIX + reading.name
    match reading:
        case Gauge():
            value = reading.read()
            if value is not None:
                yield GaugeMetricFamily(name, reading.help, value)
        case Counter():
            yield CounterMetricFamily(name, reading.help, reading.read())
        case Counters():
            family = CounterMetricFamily(name, reading.help, labels=[reading.label])
            for of, count in reading.read().items():
                family.add_metric([of], count)
            yield family


def _of_requests(metrics: Metrics) -> Iterator[Metric]:
    requests = CounterMetricFamily(_PREFIX + "requests", "Requests by endpoint and outcome.", labels=["endpoint", "outcome"])
    for endpoint, results in metrics.requests.items():
        for result, count in results.items():
            requests.add_metric([ENDPOINT_LABELS[endpoint], result], count)
    yield requests
    yield _histogram(
        "request_duration_seconds", "Until the answer was ready to be sent, by outcome.", "outcome", metrics.request_seconds.items()
    )
    yield _histogram("stage_duration_seconds", "Parts of a request's way.", "stage", metrics.stage_seconds.items())
    yield _counter("bypasses", "Requests passed through without lookup, by reason.", "reason", metrics.bypasses)
    yield CounterMetricFamily(_PREFIX + "failed_open", "Requests passed through because the cache itself failed.", metrics.failures_opened)
    yield _counter("tokens_saved", "Tokens that upstream did not have to read or write.", "kind", metrics.tokens_saved)
    yield CounterMetricFamily(
        _PREFIX + "upstream_seconds_saved", "Time upstream had taken for the answers that hits repeated.", metrics.upstream_seconds_saved
    )


def _of_the_semantic_tier(metrics: Metrics) -> Iterator[Metric]:
    yield _counter("guard_refusals", "Similar answers that the guard kept from being served, by rule.", "rule", metrics.refusals)
    yield _counter("semantic_shadow", "What the semantic tier would have done, where it only measures.", "outcome", metrics.shadows)
    yield _counter("feedback", "Verdicts on served answers.", "verdict", metrics.verdicts)


def _of_the_store(metrics: Metrics, stats: StoreStats) -> Iterator[Metric]:
    yield _counter("not_stored", "Answers that were not kept, by reason.", "reason", metrics.not_stored_reasons)
    yield _counter("flushes", "Flushes ordered, by what they named.", "target", metrics.flushes)
    for name, help_text in _STORE_GAUGES.items():
        yield GaugeMetricFamily(f"{_PREFIX}store_{name}", help_text, getattr(stats, name))
    for name, help_text in _STORE_COUNTERS.items():
        yield CounterMetricFamily(f"{_PREFIX}store_{name}", help_text, getattr(stats, name))


def _counter(name: str, help_text: str, label: str, counts: Counts) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, help_text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, help_text: str, label: str, histograms: Iterable[tuple[str, Histogram]]) -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, help_text, labels=[label])
    for value, histogram in histograms:
        family.add_metric([value], histogram.cumulative(), histogram.total)
    return family
