"""An entry: one stored answer with what is needed to serve, price, expire and flush it.

The sidecar's pipeline makes entries, stores keep them, renderings read them.
"""

from dataclasses import dataclass

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.epochs import Stamp


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored answer. Times are Unix seconds; `digest` alone identifies the entry, since the scope went into it."""

    scope: bytes
    """32 bytes; vectors are searched inside it."""
    digest: bytes
    """32 bytes, SHA-256 of the canonical prompt inside the scope: the key."""
    endpoint: Endpoint
    prompt: str
    """The last user text as it was written, for the guard; empty where the endpoint singles none out."""
    answer: bytes
    """The plain (not streamed) JSON answer, UTF-8; every rendering is made from it."""
    answer_id: str
    """The value of the answer's top-level `id`, replaced in every replay; empty if it has none."""
    headers: tuple[tuple[str, str], ...]
    """Response headers that belong to the answer (content-type, CORS); never cookies, dates or request ids."""
    stamps: tuple[Stamp, ...]
    """Epochs read when the request began; all must still be equal."""
    created: float
    ttl_seconds: float
    prompt_tokens: int
    completion_tokens: int
    upstream_seconds: float
    """How long upstream took for it: what a hit saves."""
    semantic: bool
    """May be found by similarity, not only by digest."""

    def age(self, now: float) -> float:
        return max(0.0, now - self.created)

    def expired(self, now: float) -> bool:
        return now >= self.created + self.ttl_seconds
