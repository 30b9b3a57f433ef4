"""What the webhook counts: outcomes and how long they took, and how old its certificate and watch are."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from inference_cache_operator.certificates.serving import ServedCertificate
from inference_cache_operator.webhook.index import Freshness, ResourceIndex


class Measures:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.admissions = Counter(
            "inference_cache_admissions", "Pods that came by, by what became of them.", ["outcome"], registry=registry
        )
        self.seconds = Histogram(
            "inference_cache_admission_seconds",
            "From an admission request to its answer.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=registry,
        )
        self.reads_failed = Counter(
            "inference_cache_resource_reads_failed",
            "Admissions that asked the index, since resources could not be read.",
            registry=registry,
        )
        self.events_failed = Counter("inference_cache_events_failed", "Events that could not be written.", registry=registry)


def show_states(registry: CollectorRegistry, served: ServedCertificate, index: ResourceIndex, freshness: Freshness) -> None:
    """Read when they are asked for."""
    expiry = Gauge(
        "inference_cache_certificate_expiry_timestamp_seconds", "When the certificate that is served runs out; 0: none.", registry=registry
    )
    expiry.set_function(lambda: served.expires.timestamp() if served.expires else 0.0)
    loaded = Gauge("inference_cache_certificate_loads", "Certificates served since the start.", registry=registry)
    loaded.set_function(lambda: float(served.times_loaded))
    resources = Gauge("inference_cache_resources", "InferenceCaches known by the watch.", registry=registry)
    resources.set_function(lambda: float(len(index)))
    behind = Gauge("inference_cache_watch_behind_seconds", "For how long the watch has missed a change.", registry=registry)
    behind.set_function(lambda: freshness.behind_seconds)
