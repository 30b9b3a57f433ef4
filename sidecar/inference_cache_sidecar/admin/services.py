"""What the admin port needs of the rest of the sidecar. `app` puts it together, the handlers call it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from inference_cache_sidecar.flush import FlushRequest, FlushResult
from inference_cache_sidecar.metrics import Verdict
from inference_cache_sidecar.store.protocol import StoreStats


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
    uptime_seconds: float


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
    flush: Callable[[FlushRequest], Awaitable[FlushResult]]
    feedback: Callable[[FeedbackRequest], Awaitable[FeedbackResult | None]]
    """None: no such answer is remembered."""
    registry: CollectorRegistry
