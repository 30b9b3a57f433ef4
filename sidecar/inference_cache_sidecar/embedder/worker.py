"""An embedder off the event loop: one thread, small batches, a deadline for every call.

Made, started and closed by the composition root; the pipeline awaits `embed`. Whatever the embedder does, a call costs
its caller no more than the deadline, and soon nothing.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.embedder.protocol import Embedder, EmbedderError
from inference_cache_sidecar.index.protocol import Vector

_log = logging.getLogger(__name__)

WARM_UP_TEXT: Final = "How can I help you today?"


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    deadline_seconds: float = 0.05
    """From the call to its vector, the wait in the queue included."""
    waiting: int = 64
    """Calls in the queue; one more is refused at once."""
    batch_texts: int = 8
    """Measured, larger batches save nothing more, and the first of a batch waits for its last."""
    batch_characters: int = 800
    """A long text is batched with nobody: it would use up their deadline."""


@dataclass(slots=True)
class EmbedCounts:
    """Read by the metrics."""

    embedded: int = 0
    too_long: int = 0
    """Or not seen whole for another reason; no failures."""
    batches: int = 0
    deadline_misses: int = 0
    failures: int = 0
    """Calls that an error of the embedder ended."""
    refused: int = 0
    """Calls that were not begun: breaker open, embedder stuck, queue full, closed."""


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    text: str
    vector: "asyncio.Future[Vector | None]"


class EmbeddingWorker:
    """An AsyncEmbedder. `start`, `embed` and `close` belong to one event loop; counters change on it alone."""

    def __init__(
        self,
        embedder: Embedder,
        limits: WorkerLimits | None = None,
        breaker: BreakerSettings | None = None,
        observe_seconds: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`observe_seconds` is called on the loop with the duration of each batch."""
        self.counts = EmbedCounts()
        self._embedder = embedder
        self._limits = limits or WorkerLimits()
        self._breaker = Breaker(breaker or BreakerSettings())
        self._observe_seconds = observe_seconds
        self._calls: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._busy_since: float | None = None
        self._missed_batch = -1
        self._seconds_per_text = 0.0
        """Of late; the thread's own."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    @property
    def breaker_open(self) -> bool:
        return self._breaker.is_open

    def start(self) -> None:
        """Starts the thread, which warms the embedder up; calls are taken at once."""
        self._loop = asyncio.get_running_loop()
        # A daemon: a hung embedder must not keep the process from ending.
        threading.Thread(target=self._work, args=(self._loop,), name="embedder", daemon=True).start()

    async def embed(self, text: str) -> Vector | None:
        self._refuse_where_hopeless()
        call = _Call(text, asyncio.get_running_loop().create_future())
        batches = self.counts.batches
        with self._changed:
            self._calls.append(call)
            self._changed.notify()
        try:
            async with asyncio.timeout(self._limits.deadline_seconds):
                return await call.vector
        except TimeoutError:
            self.counts.deadline_misses += 1
            self._missed(batches)
            raise EmbedderError("the embedder missed its deadline") from None
        finally:
            self._withdraw(call)

    async def close(self) -> None:
        """Waits for the running batch, but not for a hung embedder; calls that wait fail."""
        with self._changed:
            self._closing = True
            waiting = list(self._calls)
            self._calls.clear()
            self._changed.notify()
        self._fail(waiting, EmbedderError("the embedder was closed"))
        if self._loop is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.deadline_seconds):
                await self._ended.wait()

    def _missed(self, batches: int) -> None:
        """`batches` had come when the call was made. One failure a batch, however many wait; none where one came: it is only busy."""
        if self.counts.batches == batches != self._missed_batch:
            self._missed_batch = batches
            self._breaker.failed()

    def _refuse_where_hopeless(self) -> None:
        reason = self._hopeless()
        if reason is not None:
            self.counts.refused += 1
            raise EmbedderError(reason)

    def _hopeless(self) -> str | None:
        if self._closing or self._loop is None:
            return "the embedder is not running"
        if not self._breaker.allows():
            return "the embedder failed again and again, and is given a rest"
        if self._stuck():
            return "the embedder is stuck"
        if len(self._calls) >= self._limits.waiting:
            return "too many calls wait for the embedder"
        return None

    def _stuck(self) -> bool:
        since = self._busy_since
        return since is not None and time.monotonic() - since > self._limits.deadline_seconds

    def _withdraw(self, call: _Call) -> None:
        """Nobody waits for it any more; if it was not begun, it never is."""
        with self._changed:
            if call in self._calls:
                self._calls.remove(call)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread."""
        self._vectors([WARM_UP_TEXT])
        while batch := self._next_batch():
            self._busy_since = began = time.monotonic()
            outcome = self._vectors([call.text for call in batch])
            self._busy_since = None
            seconds = time.monotonic() - began
            self._seconds_per_text += (seconds / len(batch) - self._seconds_per_text) / 4
            _post(loop, self._deliver, batch, outcome, seconds)
        _post(loop, self._ended.set)

    def _next_batch(self) -> list[_Call]:
        """Newest first: under overload they alone can still be served in time. Empty when closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._closing)
            batch: list[_Call] = []
            room = self._limits.batch_characters
            most = self._texts_in_time()
            while self._calls and len(batch) < most and (not batch or len(self._calls[-1].text) <= room):
                batch.append(self._calls.pop())
                room -= len(batch[-1].text)
            return batch

    def _texts_in_time(self) -> int:
        """As many as take half the deadline, by what they took of late; in the other half they wait for their turn."""
        most, half = self._limits.batch_texts, self._limits.deadline_seconds / 2
        return most if self._seconds_per_text * most <= half else max(1, int(half / self._seconds_per_text))

    def _vectors(self, texts: list[str]) -> list[Vector | None] | EmbedderError:
        try:
            vectors = self._embedder.embed(texts)
        # An edge: whatever a model runtime raises must not end the thread. Its message may quote the text, so only its type is told.
        except Exception as error:
            _log.warning("the embedder failed: %s", type(error).__name__)
            return EmbedderError(f"the embedder failed: {type(error).__name__}")
        if len(vectors) != len(texts):
            return EmbedderError(f"the embedder gave {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    def _deliver(self, batch: list[_Call], outcome: list[Vector | None] | EmbedderError, seconds: float) -> None:
        self.counts.batches += 1
        self._observe_seconds(seconds)
        if isinstance(outcome, EmbedderError):
            self.counts.failures += len(batch)
            self._breaker.failed()
            self._fail(batch, outcome)
            return
        for call, vector in zip(batch, outcome, strict=True):
            self._succeed(call, vector)

    def _succeed(self, call: _Call, vector: Vector | None) -> None:
        if vector is None:
            self.counts.too_long += 1
        else:
            self.counts.embedded += 1
        # Done already where the caller left or the deadline passed: the vector came late.
        if not call.vector.done():
            self._breaker.succeeded()
            call.vector.set_result(vector)

    def _fail(self, calls: list[_Call], error: EmbedderError) -> None:
        for call in calls:
            if not call.vector.done():
                # One instance each: a raised exception carries its own traceback.
                call.vector.set_exception(EmbedderError(*error.args))


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    # The loop may be closed: then nobody waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *arguments)
