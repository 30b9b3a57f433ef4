"""The promise of an embedder, and of the worker around it."""

from collections.abc import Sequence
from typing import Protocol

from inference_cache_sidecar.index.protocol import Vector


class Embedder(Protocol):
    """Synchronous; used by one thread at a time."""

    name: str
    dimensions: int
    max_tokens: int
    """Longer texts are not embedded: what is past it would not be seen."""
    digest: str
    """SHA-256 (hex) of model and tokenizer: vectors of different digests are never compared."""

    def embed(self, texts: Sequence[str]) -> list[Vector | None]:
        """One vector a text; None for a text not seen whole: longer than `max_tokens`, or with characters unknown to the model."""
        ...


class AsyncEmbedder(Protocol):
    """What the pipeline sees: an embedder off the event loop."""

    async def embed(self, text: str) -> Vector | None:
        """None for a text that would not be seen whole. Raises EmbedderError if it failed or missed its deadline."""
        ...


class EmbedderError(Exception):
    """The embedder failed, is missing, or missed its deadline: the exact tier goes on alone."""
