"""What the sidecar counts: outcomes, and how long they took. The pipeline calls it, `exposition` shows it.

Every label comes from a closed list or is bounded; the names of models and tenants are none.
"""

from enum import StrEnum
from typing import Final

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.counting import OTHER, Counts, Histogram
from inference_cache_sidecar.query.model import BypassReason


class Result(StrEnum):
    """What became of a request."""

    HIT_EXACT = "hit_exact"
    HIT_SEMANTIC = "hit_semantic"
    HIT_STALE = "hit_stale"
    MISS = "miss"
    COALESCED = "coalesced"
    BYPASS = "bypass"
    ERROR = "error"


class Stage(StrEnum):
    """A part of a request's way; `upstream` lasts from sending to the answer's last byte."""

    PARSE = "parse"
    ACCESS = "access"
    """Only where upstream had to be asked."""
    SIMILAR = "similar"
    """The whole of a semantic lookup: embedding, search and guard."""
    EMBED = "embed"
    SEARCH = "search"
    UPSTREAM = "upstream"


class Verdict(StrEnum):
    RIGHT = "right"
    WRONG = "wrong"


ENDPOINT_LABELS: Final[dict[Endpoint | None, str]] = {None: OTHER} | {endpoint: endpoint.value for endpoint in Endpoint}


class Metrics:
    """One for the process; used on one thread."""

    def __init__(self) -> None:
        self.requests: dict[Endpoint | None, dict[Result, int]] = {label: dict.fromkeys(Result, 0) for label in ENDPOINT_LABELS}
        self.request_seconds = {result: Histogram() for result in Result}
        self.stage_seconds = {stage: Histogram() for stage in Stage}
        self.bypasses = Counts(reason.value for reason in BypassReason)
        self.refusals = Counts()
        self.not_stored_reasons = Counts()
        self.tokens_saved = Counts(("prompt", "completion"))
        self.upstream_seconds_saved = 0.0
        self.shadows = Counts()
        self.verdicts = Counts(Verdict)
        self.flushes = Counts()
        self.failures_opened = 0

    def request(self, endpoint: Endpoint | None, result: Result, seconds: float) -> None:
        """A request was answered; `seconds` until the answer was ready to be sent."""
        self.requests[endpoint][result] += 1
        self.request_seconds[result].observe(seconds)

    def failed(self) -> None:
        """Upstream gave no answer, and nothing stood in for it."""
        self.requests[None][Result.ERROR] += 1

    def bypass(self, endpoint: Endpoint | None, reason: BypassReason) -> None:
        self.requests[endpoint][Result.BYPASS] += 1
        self.bypasses.add(reason.value)

    def stage(self, stage: Stage, seconds: float) -> None:
        self.stage_seconds[stage].observe(seconds)

    def saved(self, prompt_tokens: int, completion_tokens: int, upstream_seconds: float) -> None:
        """What a hit spared upstream."""
        self.tokens_saved.add("prompt", prompt_tokens)
        self.tokens_saved.add("completion", completion_tokens)
        self.upstream_seconds_saved += upstream_seconds

    def refused(self, rule: str) -> None:
        """The guard kept a similar answer from being served."""
        self.refusals.add(rule)

    def not_stored(self, reason: str) -> None:
        self.not_stored_reasons.add(reason)

    def shadow(self, outcome: str) -> None:
        """What the semantic tier would have done, where it only measures."""
        self.shadows.add(outcome)

    def feedback(self, verdict: Verdict) -> None:
        self.verdicts.add(verdict)

    def flushed(self, target: str) -> None:
        self.flushes.add(target)

    def failed_open(self) -> None:
        """The cache itself failed, and the request went to upstream as if there were none."""
        self.failures_opened += 1
