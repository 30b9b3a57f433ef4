"""An embedder that loads while the sidecar already answers: until it is there, the exact tier goes on alone.

Made, started and closed by the composition root; the lookup awaits `embed`, `/status` shows `state`.
"""

import asyncio
import logging
from collections.abc import Callable

from inference_cache_sidecar.embedder.protocol import Embedder, EmbedderError
from inference_cache_sidecar.embedder.worker import EmbedCounts, EmbeddingWorker
from inference_cache_sidecar.index.protocol import Vector

_log = logging.getLogger(__name__)


class LateEmbedder:
    """Implements AsyncEmbedder."""

    def __init__(self, load: Callable[[], Embedder], wrap: Callable[[Embedder], EmbeddingWorker]) -> None:
        self._load = load
        self._wrap = wrap
        self._worker: EmbeddingWorker | None = None
        self._loading: asyncio.Task[None] | None = None
        self.state = "loading"
        """`loading`, `ready`, or why it is not there."""
        self._known: asyncio.Future[Embedder] = asyncio.get_running_loop().create_future()

    @property
    def counts(self) -> EmbedCounts:
        return self._worker.counts if self._worker is not None else EmbedCounts()

    @property
    def breaker_open(self) -> bool:
        return self._worker is not None and self._worker.breaker_open

    def start(self) -> None:
        self._loading = asyncio.create_task(self._take_up())

    async def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._worker is not None:
            await self._worker.close()

    async def embed(self, text: str) -> Vector | None:
        if self._worker is None:
            raise EmbedderError(self.state)
        return await self._worker.embed(text)

    async def known(self) -> Embedder:
        """Once it is loaded; never, if it cannot be."""
        return await asyncio.shield(self._known)

    async def _take_up(self) -> None:
        try:
            embedder = await asyncio.to_thread(self._load)
        except EmbedderError as error:
            self.state = str(error)
            _log.error("no semantic tier: %s", error)
            return
        self._worker = self._wrap(embedder)
        self._worker.start()
        self.state = "ready"
        self._known.set_result(embedder)
