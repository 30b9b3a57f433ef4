"""What the controller counts."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Measures:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.rounds = Counter("inference_cache_reconciles", "Looks at a resource, by outcome.", ["outcome"], registry=registry)
        self.seconds = Histogram(
            "inference_cache_reconcile_seconds",
            "One look at a resource, with all that it did.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )


def show_states(
    registry: CollectorRegistry, leading: Callable[[], bool], behind: Callable[[], float], resources: Callable[[], int]
) -> None:
    """Read when they are asked for."""
    gauge = Gauge("inference_cache_leading", "1 while this replica leads.", registry=registry)
    gauge.set_function(lambda: float(leading()))
    behind_gauge = Gauge("inference_cache_watch_behind_seconds", "For how long the watch has missed a change.", registry=registry)
    behind_gauge.set_function(behind)
    known = Gauge("inference_cache_resources", "InferenceCaches known by the watch.", registry=registry)
    known.set_function(lambda: float(resources()))
