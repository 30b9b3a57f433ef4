"""What the pipeline asks of the renderings of an endpoint."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from inference_cache_sidecar.query.model import Rendition


class Reach(Enum):
    """How an answer may be found again."""

    ALL = "All"
    EXACT = "Exact"


@dataclass(frozen=True, slots=True)
class Storable:
    """A complete answer, as it goes into an entry."""

    answer: bytes
    answer_id: str
    prompt_tokens: int
    completion_tokens: int
    reach: Reach


@dataclass(frozen=True, slots=True)
class NotStorable:
    """Why an answer is not kept; the reason stands in the metrics (bounded set of short words)."""

    reason: str


class Assembler(Protocol):
    """Puts a running stream together again. Fed with whole SSE events as upstream sent them."""

    def feed(self, event: bytes) -> None:
        """Never raises: garbage makes `result` NotStorable."""
        ...

    def result(self) -> Storable | NotStorable:
        """Called after upstream closed the stream properly."""
        ...


class LiveRendition(Protocol):
    """One client's view of a running stream: its own id, its own wish for usage."""

    def feed(self, event: bytes) -> bytes:
        """The bytes to send for one upstream event; may hold one event back."""
        ...

    def finish(self) -> bytes:
        """What was held back."""
        ...


class Renderer(Protocol):
    """The renderings of one endpoint."""

    def upstream_body(self, body: bytes, rendition: Rendition) -> bytes:
        """The request body to send for a cacheable miss: asks for usage where a stream would not carry it; else `body` itself."""
        ...

    def from_plain(self, body: bytes) -> Storable | NotStorable:
        """Judge and take in a plain 200 answer."""
        ...

    def assembler(self) -> Assembler: ...

    def can_join(self, rendition: Rendition, leader: Rendition) -> bool:
        """May a client that wants `rendition` be served event by event from the stream that `leader` opened?"""
        ...

    def live(self, rendition: Rendition, answer_id: str | None) -> LiveRendition:
        """`answer_id` None keeps upstream's own id (the leader)."""
        ...

    def new_id(self, request_id: str | None) -> str:
        """An id in the endpoint's style, from the client's X-Request-Id where upstream would use it."""
        ...

    def plain(self, answer: bytes, old_id: str, new_id: str) -> bytes: ...

    def stream(self, answer: bytes, old_id: str, new_id: str, rendition: Rendition) -> bytes:
        """The whole SSE body of a replay."""
        ...
