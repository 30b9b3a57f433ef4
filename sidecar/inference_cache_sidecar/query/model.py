"""What the query parser returns and the pipeline works on."""

from dataclasses import dataclass
from enum import Enum

from inference_cache_contract.endpoints import Endpoint


class BypassReason(Enum):
    """Why a request is passed through without lookup; the value stands in Cache-Status and in the metrics."""

    MODE = "mode"
    DRAINING = "draining"
    UNENCRYPTED = "unencrypted"
    METHOD = "method"
    PATH = "path"
    BODY_TOO_LARGE = "body-too-large"
    CONTENT_TYPE = "content-type"
    CONTENT_ENCODING = "content-encoding"
    MALFORMED = "malformed"
    NOT_CACHEABLE = "not-cacheable"
    SAMPLING = "sampling"
    STATEFUL = "stateful"
    REQUEST_DIRECTIVE = "no-store"
    UPSTREAM_UNCONFIRMED = "upstream-unconfirmed"


@dataclass(frozen=True, slots=True)
class Bypass:
    """The request goes to upstream as it is, and nothing is stored."""

    reason: BypassReason


@dataclass(frozen=True, slots=True)
class Rendition:
    """How this client wants the answer; never part of the scope."""

    stream: bool = False
    include_usage: bool = False
    """A final usage chunk (`stream_options.include_usage`)."""
    continuous_usage: bool = False
    """Usage on every chunk (`stream_options.continuous_usage_stats`)."""


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed, cacheable inference request."""

    endpoint: Endpoint
    model: str
    determinants: bytes
    """Canonical serialisation of everything in the request that must be equal."""
    prompt: str
    """The last user text as written; empty where none is singled out."""
    canonical: bytes
    """What the digest is taken over: the normalised prompt, or the whole input."""
    semantic: bool
    """The prompt may be merely similar (chat types with a text prompt)."""
    rendition: Rendition
