"""One piece of a file, from whichever mirror gives it, tried again until it is there."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from inference_cache_artifacts.errors import (
    BadManifest,
    BadRequest,
    Changed,
    Corrupt,
    Forbidden,
    Missing,
    Transient,
    Unreachable,
    Unverifiable,
)
from inference_cache_artifacts.progress import Progress
from inference_cache_artifacts.source import Body
from inference_cache_artifacts.store.direct import ALIGNMENT, pages
from inference_cache_artifacts.transfer.limiting import Limiter, backoff_seconds
from inference_cache_artifacts.transfer.mirrors import Mirror, Mirrors
from inference_cache_artifacts.transfer.schedule import Job, Piece

BUFFER_BYTES: Final = 512 << 10
"""What a kill loses of each connection, at most; a disk likes larger writes, and gains little from them."""
HELD_SECONDS: Final = 0.05
"""When more comes after that, whole pages are written though the buffer is not full: a kill is not to lose what took long to come."""
OF_A_SOURCE: Final = (BadManifest, BadRequest, Corrupt, Forbidden, Missing, Unreachable, Unverifiable)
CHANGES: Final = 3
"""So often a file may become another one while it is fetched; then only the checksum of the whole decides."""


class Stopped(Exception):
    """The run has ended; never leaves this package."""


class Pieces:
    def __init__(self, mirrors: Mirrors, limiter: Limiter, progress: Progress, stop: threading.Event) -> None:
        self._mirrors = mirrors
        self._limiter = limiter
        self._progress = progress
        self._stop = stop
        self.fetching = False
        """Bytes have begun to come."""

    def buffer(self) -> memoryview:
        """A thread's own."""
        return pages(BUFFER_BYTES)

    def fetch(self, piece: Piece, buffer: memoryview) -> None:
        """Returns when every byte of it is written. Raises ArtifactError, Stopped."""
        position = piece.start
        while position < piece.end:
            self._check_stop()
            mirror = self._mirrors.best(piece.job.assembly.wanted.path)
            position = self._some(piece, position, mirror, buffer)

    def _some(self, piece: Piece, position: int, mirror: Mirror, buffer: memoryview) -> int:
        """How far one request brought it."""
        job, path = piece.job, piece.job.assembly.wanted.path
        try:
            reached = self._asked(piece, position, mirror, buffer)
        except Transient as error:
            self._pause(mirror, path, error)
            return position
        except Changed as error:
            self._changed(job, mirror, error)
            return position
        except OF_A_SOURCE as error:
            self._mirrors.refuses(mirror, path, error)
            self._progress.noted("refused", file=path, source=mirror.source.url, reason=error.reason)
            return position
        if reached == position:
            self._pause(mirror, path, Transient("an answer ended before its first byte"))
        return reached

    def _asked(self, piece: Piece, position: int, mirror: Mirror, buffer: memoryview) -> int:
        wanted = piece.job.assembly.wanted
        remote = self._mirrors.remote(mirror, wanted.path)
        if piece.job.changes > CHANGES:
            # As of servers behind one name that tell different ETags of equal bytes.
            remote = replace(remote, etag=None)
        if remote.size != wanted.size:
            raise Corrupt(f"{wanted.path}: {mirror.source.url} has {remote.size} bytes, not {wanted.size}", wanted.path)
        reading = Reading(piece.job.assembly.write, position, buffer)
        try:
            with mirror.source.open(remote, position, piece.end) as body:
                piece.job.asked.add(mirror.number)
                self._pump(reading, body, piece.end)
        except Transient:
            # What came before counts, and is no reason to wait.
            if reading.flushed() == position:
                raise
        except Stopped:
            reading.flushed()
            raise
        if reading.flushed() > position:
            self._mirrors.gave_bytes(mirror)
        return reading.position

    def _pump(self, reading: "Reading", body: Body, end: int) -> None:
        while reading.wants(end):
            self._check_stop()
            count = body.readinto(reading.free(end))
            if count == 0:
                return
            self.fetching = True
            reading.took(count)
            self._progress.received(count)
            if (seconds := self._limiter.seconds_for(count)) > 0 and self._stop.wait(seconds):
                raise Stopped

    def _pause(self, mirror: Mirror, path: str, error: Transient) -> None:
        failures = self._mirrors.failed(mirror, error)
        self._progress.noted("retry", file=path, source=mirror.source.url, failures=failures)
        if self._stop.wait(backoff_seconds(failures, error.retry_after_seconds)):
            raise Stopped

    def _changed(self, job: Job, mirror: Mirror, error: Changed) -> None:
        """Where the checksum of the whole is known, it tells what to make of the new one."""
        path = job.assembly.wanted.path
        job.mixed, job.changes = True, job.changes + 1
        self._mirrors.forget(mirror, path)
        if not job.assembly.wanted.checksums:
            self._mirrors.refuses(mirror, path, error)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped


class Reading:
    """Bytes of a connection on their way into a file.

    What belongs at P in the file is held at P modulo the buffer's length, so that whole pages of the one are whole pages of the other.
    """

    def __init__(
        self, write: Callable[[memoryview, int], None], position: int, buffer: memoryview, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.position = position
        """In the file: up to here everything is written."""
        self._reached = position
        """Up to here everything has come."""
        self._since = 0.0
        """When the first of what is held came."""
        self._write_at = write
        self._buffer = buffer
        self._clock = clock

    def wants(self, end: int) -> bool:
        return self._reached < end

    def free(self, end: int) -> memoryview:
        start = self._reached % len(self._buffer)
        return self._buffer[start : start + end - self._reached]

    def took(self, count: int) -> None:
        now = self._clock()
        if self._reached == self.position:
            self._since = now
        self._reached += count
        if self._reached % len(self._buffer) == 0:
            self._write(self._reached)
        elif now - self._since >= HELD_SECONDS:
            self._write(self._reached - self._reached % ALIGNMENT)
            self._since = now

    def flushed(self) -> int:
        """Writes what is held, and says up to where all is written."""
        self._write(self._reached)
        return self.position

    def _write(self, end: int) -> None:
        if end > self.position:
            start = self.position % len(self._buffer)
            self._write_at(self._buffer[start : start + end - self.position], self.position)
            self.position = end
