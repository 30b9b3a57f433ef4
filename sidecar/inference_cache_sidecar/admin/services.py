"""What the admin port needs of the rest of the sidecar. `app` puts it together, the handlers call it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry

from inference_cache_contract.sidecar_status import FlushReport
from inference_cache_sidecar.configuration.configured import ConfigurationStatus
from inference_cache_sidecar.draining import Drained
from inference_cache_sidecar.flush import FlushRequest, FlushResult
from inference_cache_sidecar.metrics import Verdict
from inference_cache_sidecar.shared.memory_report import Finding
from inference_cache_sidecar.shared.purging import Purge
from inference_cache_sidecar.store.protocol import StoreStats
from inference_cache_sidecar.store.tiered import Warming

_NONE: Final = ConfigurationStatus()


@dataclass(frozen=True, slots=True)
class SharedStatus:
    """Of the shared store. Memory in bytes, over all its masters; None while it does not answer."""

    kind: str
    """standalone, sentinel or cluster."""
    healthy: bool
    findings: Sequence[Finding]
    epochs_confirmed: bool
    """False: nothing is served from any tier until the flushes elsewhere are known."""
    breaker_open: bool
    """It, or one of its servers, failed, and is left alone until it answers again."""
    replicas: int | None
    """Sidecars that confirmed their epochs within the lease, this one among them."""
    used_memory: int | None
    max_memory: int | None
    """0: no limit."""
    policy: str | None
    fragmentation_ratio: float | None
    warming: Warming


@dataclass(frozen=True, slots=True)
class Status:
    """What `/status` tells; no secrets, since it is read without a token."""

    cache: str
    model: str
    model_version: str
    mode: str
    semantic_mode: str
    revision: bytes
    upstream_confirmed: bool
    """False: nothing is served or stored until upstream has said who it is."""
    epochs: Mapping[str, int | None]
    """Of the cache, its version and its categories; no tags, whose names may tell of users."""
    embedder: str
    """`ready`, `off`, `loading`, or why it is not there."""
    store: StoreStats
    """Of memory."""
    uptime_seconds: float
    purge: Purge | None
    """The latest that deleted bytes in the shared store."""
    shared_store: SharedStatus | None
    """None where there is none."""
    configuration: ConfigurationStatus = _NONE
    draining: bool = False
    """Nothing is served from the cache or stored any more: the pod ends."""
    flushes: Sequence[FlushReport] = ()
    """That the hot configuration orders."""


@dataclass(frozen=True, slots=True)
class FeedbackRequest:
    """One of `answer_id` (the answer's `id`) and `key` (32 bytes, from Cache-Status) is given."""

    answer_id: str | None
    key: bytes | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    evicted: bool
    """An entry was removed; a right answer stays."""


@dataclass(frozen=True, slots=True)
class AdminServices:
    status: Callable[[], Status]
    not_ready: Callable[[], Sequence[str]]
    """Why clients should not be sent here yet; empty when they may."""
    flush: Callable[[FlushRequest, str], Awaitable[FlushResult]]
    """With who ordered it, for the log. Raises StoreError."""
    feedback: Callable[[FeedbackRequest], Awaitable[FeedbackResult | None]]
    """None: no such answer is remembered. Raises StoreError."""
    registry: CollectorRegistry
    drain: Callable[[], Awaitable[Drained]] | None = None
    """Begins it, and ends when nothing is in flight any more. None: there is nothing to drain."""
