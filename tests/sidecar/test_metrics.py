from dataclasses import replace
from timeit import repeat

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.counting import MAX_LABELS, Counts, Histogram
from inference_cache_sidecar.exposition import Counter, Counters, Gauge, registry
from inference_cache_sidecar.metrics import Metrics, Result, Stage, Verdict
from inference_cache_sidecar.query.model import BypassReason
from inference_cache_sidecar.store.protocol import StoreStats

EMPTY = StoreStats(entries=0, vectors=0, max_bytes=0, used_bytes=0, entry_bytes=0, stored=0, evicted=0, expired=0, flushed=0, refused=0)


def value(shown: CollectorRegistry, name: str, **labels: str) -> float | None:
    return shown.get_sample_value("inference_cache_" + name, labels)


def test_an_outcome_is_counted_and_timed() -> None:
    metrics = Metrics()
    metrics.request(Endpoint.CHAT, Result.HIT_EXACT, 0.0003)
    metrics.request(Endpoint.CHAT, Result.HIT_EXACT, 3.0)
    metrics.request(Endpoint.EMBEDDINGS, Result.MISS, 1000.0)
    shown = registry(metrics, lambda: EMPTY)
    assert value(shown, "requests_total", endpoint="chat", outcome="hit_exact") == 2
    assert value(shown, "requests_total", endpoint="embeddings", outcome="miss") == 1
    assert value(shown, "requests_total", endpoint="chat", outcome="miss") == 0
    assert value(shown, "request_duration_seconds_bucket", outcome="hit_exact", le="0.00025") == 0
    assert value(shown, "request_duration_seconds_bucket", outcome="hit_exact", le="0.0005") == 1
    assert value(shown, "request_duration_seconds_bucket", outcome="hit_exact", le="5.0") == 2
    assert value(shown, "request_duration_seconds_count", outcome="hit_exact") == 2
    assert value(shown, "request_duration_seconds_sum", outcome="hit_exact") == pytest.approx(3.0003)
    assert value(shown, "request_duration_seconds_bucket", outcome="miss", le="120.0") == 0
    assert value(shown, "request_duration_seconds_bucket", outcome="miss", le="+Inf") == 1


def test_a_bypass_is_counted_by_reason_also_where_the_path_is_no_endpoint() -> None:
    metrics = Metrics()
    metrics.bypass(None, BypassReason.PATH)
    metrics.bypass(Endpoint.CHAT, BypassReason.SAMPLING)
    shown = registry(metrics, lambda: EMPTY)
    assert value(shown, "requests_total", endpoint="other", outcome="bypass") == 1
    assert value(shown, "requests_total", endpoint="chat", outcome="bypass") == 1
    assert value(shown, "bypasses_total", reason="path") == 1
    assert value(shown, "bypasses_total", reason="sampling") == 1
    assert value(shown, "bypasses_total", reason="mode") == 0


def test_the_rest_is_counted_under_its_own_name() -> None:
    metrics = Metrics()
    metrics.saved(100, 20, 1.5)
    metrics.saved(1, 2, 0.5)
    metrics.refused("numbers")
    metrics.not_stored("length")
    metrics.shadow("hit")
    metrics.feedback(Verdict.WRONG)
    metrics.flushed("tag")
    metrics.failed_open()
    metrics.stage(Stage.EMBED, 0.002)
    shown = registry(metrics, lambda: EMPTY)
    assert value(shown, "tokens_saved_total", kind="prompt") == 101
    assert value(shown, "tokens_saved_total", kind="completion") == 22
    assert value(shown, "upstream_seconds_saved_total") == 2.0
    assert value(shown, "guard_refusals_total", rule="numbers") == 1
    assert value(shown, "not_stored_total", reason="length") == 1
    assert value(shown, "semantic_shadow_total", outcome="hit") == 1
    assert value(shown, "feedback_total", verdict="wrong") == 1
    assert value(shown, "flushes_total", target="tag") == 1
    assert value(shown, "failed_open_total") == 1
    assert value(shown, "stage_duration_seconds_bucket", stage="embed", le="0.0025") == 1


def test_store_and_gauges_are_read_at_every_scrape() -> None:
    stats, flights = EMPTY, 1
    shown = registry(Metrics(), lambda: stats, [Gauge("flights", "Upstream calls in progress.", lambda: flights)])
    assert (value(shown, "store_entries"), value(shown, "flights")) == (0, 1)
    stats, flights = replace(EMPTY, entries=3, used_bytes=900, max_bytes=1000, evicted=7), 2
    assert (value(shown, "store_entries"), value(shown, "flights")) == (3, 2)
    assert (value(shown, "store_used_bytes"), value(shown, "store_max_bytes"), value(shown, "store_evicted_total")) == (900, 1000, 7)


def test_other_counters_are_read_at_every_scrape_and_what_is_not_known_is_left_out() -> None:
    counts: dict[str, float] = {"hot": 1, "other": 2}
    known: list[float | None] = [None]
    readings = [
        Gauge("shared_bytes", "Bytes.", lambda: known[0]),
        Counter("losses", "Losses.", lambda: 7),
        Counters("calls", "Calls.", "kind", lambda: counts),
    ]
    shown = registry(Metrics(), lambda: EMPTY, readings)
    assert (value(shown, "shared_bytes"), value(shown, "losses_total")) == (None, 7)
    assert (value(shown, "calls_total", kind="hot"), value(shown, "calls_total", kind="other")) == (1, 2)
    known[0], counts["hot"] = 0.0, 5
    assert (value(shown, "shared_bytes"), value(shown, "calls_total", kind="hot")) == (0, 5)
    assert b"inference_cache_shared_bytes 0.0" in openmetrics(shown)


def test_two_sidecars_in_one_process_do_not_share_counters() -> None:
    one, other = Metrics(), Metrics()
    one.request(Endpoint.CHAT, Result.MISS, 0.1)
    assert value(registry(other, lambda: EMPTY), "requests_total", endpoint="chat", outcome="miss") == 0


def test_everything_exposed_has_help_and_reads_as_openmetrics() -> None:
    shown = registry(Metrics(), lambda: EMPTY)
    text = openmetrics(shown).decode()
    assert text.endswith("# EOF\n")
    assert all(family.documentation for family in shown.collect())
    assert {family.name for family in text_string_to_metric_families(text.replace("# EOF\n", ""))} >= {"inference_cache_build_info"}


def test_labels_past_the_bound_are_counted_as_other() -> None:
    counts = Counts()
    for number in range(MAX_LABELS * 3):
        counts.add(f"reason-{number}")
    assert len(list(counts.items())) == MAX_LABELS + 1
    assert counts["other"] == MAX_LABELS * 2
    assert counts["reason-0"] == 1


def test_a_duration_on_a_bound_belongs_below_it() -> None:
    histogram = Histogram()
    histogram.observe(0.0001)
    assert histogram.cumulative()[0] == ("0.0001", 1)


def test_counting_a_request_costs_a_few_microseconds_at_most() -> None:
    metrics = Metrics()
    best = min(repeat(lambda: metrics.request(Endpoint.CHAT, Result.HIT_EXACT, 0.0003), number=10_000, repeat=5)) / 10_000
    assert best < 5e-6
