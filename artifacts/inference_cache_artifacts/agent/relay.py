"""Jobs for a pod: asked by the engine's threads, taken and answered in the event loop. One for each fetch.

Bytes wait in the connection's buffer until a thread of the engine reads them: more than that is never in memory.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from aiohttp import ClientError, StreamReader
from aiohttp.http_exceptions import HttpProcessingError

from inference_cache_artifacts.agent.settings import Patience
from inference_cache_artifacts.errors import ArtifactError, Transient
from inference_cache_artifacts.handover.protocol import ABANDONED, Job

_TICK_SECONDS: Final = 0.25
_END_SECONDS: Final = 1.0
_BROKEN: Final = (OSError, ClientError, HttpProcessingError)
_T = TypeVar("_T")


class Abandoned(ArtifactError):
    """Its pod went away, or the agent ends; what was fetched stays."""

    reason = ABANDONED


class Call:
    """A job, from its offer until nobody needs its answer any more."""

    def __init__(self, job: Job) -> None:
        self.job: Final = job
        self.answer: Final[Future[StreamReader]] = Future()
        self.over: Final = asyncio.Event()
        self.seen_at = time.monotonic()
        """When it was offered, was taken, or a byte came."""
        self.is_taken = False
        self.reader: asyncio.Task[Any] | None = None

    @property
    def is_begun(self) -> bool:
        """The pod sends its answer."""
        return self.answer.done()


def why_gone(now: float, seen_at: float, heard_at: float, patience: Patience, *, is_taken: bool) -> str | None:
    """Why the pod counts as gone away. Pure; seconds by one clock."""
    if is_taken:
        is_silent = now - max(seen_at, heard_at) > patience.silent
        return f"it was not heard of for {patience.silent:g} s" if is_silent else None
    # A job that is new gets a moment, even where the pod was silent before.
    is_away = now - heard_at > patience.away and now - seen_at > patience.away / 10
    return f"it was not heard of for {patience.away:g} s" if is_away else None


def why_slow(now: float, seen_at: float, patience: Patience, *, is_taken: bool, is_begun: bool) -> str | None:
    """Why the pod, which is there, is to be asked again: its source hangs, or the job did not reach it. Pure; seconds by one clock."""
    most = patience.silent if is_begun else patience.slow
    return f"no byte came for {most:g} s" if is_taken and now - seen_at > most else None


class Relay:
    """`ask` and `more` are for threads, all else is for the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: Patience) -> None:
        self._loop = loop
        self._patience = patience
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._offered: deque[Call] = deque()
        self._changed = asyncio.Event()
        self._polls = 0
        self._heard_at = time.monotonic()
        self.is_over = False
        self.is_lost = False
        """Its pod has gone away: nothing that was raised since says anything of the sources."""

    @property
    def heard_at(self) -> float:
        """When its pod last gave a sign of life, by the monotonic clock."""
        return time.monotonic() if self._polls else self._heard_at

    def heard(self) -> None:
        self._heard_at = time.monotonic()

    async def take(self) -> Job | None:
        """The next job, as soon as there is one; None: there was none, or there will be none any more."""
        with self._polling(), suppress(TimeoutError):
            async with asyncio.timeout(self._patience.job):
                while not self._offered and not self.is_over:
                    self._changed.clear()
                    await self._changed.wait()
        if not self._offered:
            return None
        call = self._offered.popleft()
        call.is_taken, call.seen_at = True, time.monotonic()
        return call.job

    async def answered(self, number: int, content: StreamReader) -> bool:
        """Returns when the engine has read what it wants; False: not all of it was wanted."""
        call = self._unanswered(number)
        if call is None:
            return False
        call.seen_at = time.monotonic()
        try:
            call.answer.set_result(content)
        except InvalidStateError:
            return False
        await call.over.wait()
        if self.is_over:
            return False
        with suppress(TimeoutError, *_BROKEN):
            async with asyncio.timeout(_END_SECONDS):
                return await content.readany() == b""
        return False

    def failed(self, number: int, error: ArtifactError | Transient) -> bool:
        call = self._unanswered(number)
        if call is None:
            return False
        try:
            call.answer.set_exception(error)
        except InvalidStateError:
            return False
        return True

    def end(self) -> None:
        """Nobody waits any more, on either side."""
        self.is_over = True
        self._changed.set()
        for call in list(self._calls.values()):
            self._close(call)

    @contextmanager
    def ask(self, job: Job) -> Iterator[tuple[Call, StreamReader]]:
        """By a thread: what the pod sends. Raises what the pod says, Transient, and Abandoned where it has gone away."""
        call = Call(job)
        self._loop.call_soon_threadsafe(self._offer, call)
        try:
            yield call, self._waited(call, call.answer)
        finally:
            self._loop.call_soon_threadsafe(self._close, call)

    def number(self) -> int:
        return next(self._numbers)

    def more(self, call: Call, content: StreamReader) -> bytes:
        """By a thread: all that has come meanwhile; nothing at the end. Raises Transient, Abandoned."""
        try:
            return self._waited(call, self._started(self._read(call, content)))
        except _BROKEN as error:
            raise Transient(f"the connection of the pod that reads the source broke ({type(error).__name__})") from None

    def _started(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _read(self, call: Call, content: StreamReader) -> bytes:
        call.reader = asyncio.current_task()
        data = await content.readany()
        call.seen_at = self._heard_at = time.monotonic()
        return data

    def _waited(self, call: Call, future: Future[_T]) -> _T:
        try:
            while not future.done():
                with suppress(TimeoutError):
                    return future.result(_TICK_SECONDS)
                self._check(call, future)
            return future.result()
        except CancelledError:
            # Whoever reads a body keeps what came of it; who asks for more is told that there is none.
            raise Transient("the fetch has ended") from None

    def _check(self, call: Call, future: Future[Any]) -> None:
        now = time.monotonic()
        gone = "the fetch has ended" if self.is_over else why_gone(now, call.seen_at, self.heard_at, self._patience, is_taken=call.is_taken)
        slow = why_slow(now, call.seen_at, self._patience, is_taken=call.is_taken, is_begun=call.is_begun)
        if (gone is None and slow is None) or not future.cancel():
            return
        if gone is None:
            raise Transient(f"the pod that reads the source: {slow}")
        self.is_lost = True
        raise Abandoned(f"the pod that reads the source has gone away: {gone}", call.job.path or None)

    def _offer(self, call: Call) -> None:
        if not self.is_over:
            self._calls[call.job.number] = call
            self._offered.append(call)
            self._changed.set()

    def _close(self, call: Call) -> None:
        self._calls.pop(call.job.number, None)
        with suppress(ValueError):
            self._offered.remove(call)
        # A body has one reader at a time: who answers the pod reads the rest.
        if call.reader is not None:
            call.reader.cancel()
        call.over.set()

    def _unanswered(self, number: int) -> Call | None:
        call = self._calls.get(number)
        return None if call is None or call.answer.done() else call

    @contextmanager
    def _polling(self) -> Iterator[None]:
        self._polls += 1
        try:
            yield
        finally:
            self._polls -= 1
            self.heard()
