"""What came of a request for features, and how often. The server makes responses of it, the metrics show the counts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Merged:
    """Answered from the cache, all of it or all but what upstream was asked for."""

    body: bytes
    found: int
    """Cells that the cache had, of `cells`: rows of the request times its features."""
    cells: int
    stored: bool
    """Something new was."""

    @property
    def whole(self) -> bool:
        return self.found == self.cells


@dataclass(frozen=True, slots=True)
class Passed:
    """Upstream was asked with the request as it was: its answer is passed on as it is."""

    stored: bool
    cells: int


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Nothing of the request may be cached now: it passes through."""

    reason: str


FeatureOutcome = Merged | Passed | Unplaced


@dataclass(slots=True)
class FeatureCounts:
    """Since start."""

    hits: int = 0
    """Requests answered without upstream."""
    partial: int = 0
    misses: int = 0
    bypassed: int = 0
    """Requests for features that passed through: not understood, too large, not to be cached now."""
    cells_found: int = 0
    cells_fetched: int = 0
    upstream_calls: int = 0
    """For requests that could be cached."""
    upstream_failures: int = 0
    """Of them: no answer."""
    not_understood: int = 0
    """Answers with status 200 that could not be taken apart."""
    store_failures: int = 0
    """Reads and writes of the store that failed."""
    dropped_entities: int = 0
    flushes: int = 0
    """Of everything the feature cache holds."""
    failed_open: int = 0
    """Requests that passed through because of an error of ours."""
