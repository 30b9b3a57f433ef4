"""The agent's jobs, carried out with the pod's own sources by threads of their own. Called by `asking`.

What goes wrong with a source is told to the agent, which knows what to do about it; what goes wrong here is raised here.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Final

from inference_cache_artifacts.errors import (
    BadManifest,
    BadRequest,
    Changed,
    Forbidden,
    Missing,
    Transient,
    Unreachable,
)
from inference_cache_artifacts.handover.client import Away, Client, Gone
from inference_cache_artifacts.handover.failures import failure_of
from inference_cache_artifacts.handover.protocol import Failure, Job, remote_fields, remotes_text
from inference_cache_artifacts.source import Body, Source
from inference_cache_artifacts.transfer.limiting import Limiter, backoff_seconds

BUFFER_BYTES: Final = 256 << 10
TRIES: Final = 3
END_SECONDS: Final = 1.0
OF_A_SOURCE: Final = (Transient, BadManifest, BadRequest, Changed, Forbidden, Missing, Unreachable)


class Stopped(Exception):
    """The relay has ended; never leaves this module."""


class Relay:
    """Of one fetch: begun, and ended."""

    def __init__(self, client: Client, fetch: str, sources: Sequence[Source], bytes_per_second: float | None) -> None:
        self._client = client
        self._fetch = fetch
        self._sources = sources
        self._limiter = Limiter(bytes_per_second)
        self._piece_bytes = BUFFER_BYTES if bytes_per_second is None else min(BUFFER_BYTES, max(1, int(bytes_per_second / 4)))
        """No longer on its way than the agent waits for the next."""
        self._stop = threading.Event()
        self._quiet = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failed: BaseException | None = None

    def begin(self, count: int) -> None:
        """Threads that do not keep the process: they may hang at a source."""
        self._threads = [threading.Thread(target=self._work, name=f"relay-{number}", daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Takes END_SECONDS at most."""
        self._stop.set()
        until = time.monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def wait(self, seconds: float) -> None:
        """Or until the agent says that it has no more jobs. Raises what went wrong here."""
        self._quiet.wait(seconds)
        self._quiet.clear()
        if self._failed is not None:
            raise self._failed

    def _work(self) -> None:
        """A thread."""
        try:
            with memoryview(bytearray(self._piece_bytes)) as buffer:
                self._take_jobs(buffer)
        # An edge: a thread's error is the caller's, whatever it is.
        except BaseException as error:
            self._failed = self._failed or error
        finally:
            self._quiet.set()

    def _take_jobs(self, buffer: memoryview) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                job = self._client.job(self._fetch)
            except Gone:
                return
            except Away:
                failures += 1
                self._stop.wait(backoff_seconds(failures, longest=2.0))
                continue
            failures = 0
            if job is not None:
                self._carry_out(job, buffer)

    def _carry_out(self, job: Job, buffer: memoryview) -> None:
        with ExitStack() as stack, suppress(Stopped, Gone):
            try:
                send = self._prepared(job, buffer, stack)
            except OF_A_SOURCE as error:
                send = partial(self._tell_failure, job, failure_of(error))
            try:
                send()
            except Away as error:
                # If nothing of it has come there, the agent would wait for long.
                self._tell_failure(job, failure_of(Transient(str(error))))

    def _prepared(self, job: Job, buffer: memoryview, stack: ExitStack) -> Callable[[], None]:
        """What only a source can make fail is done; what is left is to send it. Raises OF_A_SOURCE, Stopped."""
        source = self._source(job)
        if job.what != "open":
            result = _small(source, job)
            return partial(self._client.tell, self._fetch, job.number, result)
        if job.remote is None:
            raise BadRequest("the agent asks for a range of no file")
        body, length = stack.enter_context(source.open(job.remote, job.start, job.end)), job.end - job.start
        count = self._read(body, buffer[:length])
        if not count and length:
            raise Transient("an answer ended before its first byte")
        return partial(self._client.stream, self._fetch, job.number, self._pieces(body, buffer, count, length))

    def _pieces(self, body: Body, buffer: memoryview, count: int, left: int) -> Iterator[memoryview]:
        """From the `count` bytes on that are in the buffer already, as far as they come. Raises Stopped."""
        while count:
            yield buffer[:count]
            left -= count
            if not left:
                return
            self._stop.wait(self._limiter.seconds_for(count))
            try:
                count = self._read(body, buffer[:left])
            except Transient:
                return

    def _read(self, body: Body, buffer: memoryview) -> int:
        if self._stop.is_set():
            raise Stopped
        return body.readinto(buffer)

    def _source(self, job: Job) -> Source:
        if job.source >= len(self._sources):
            raise BadRequest("the agent asks for a source that there is not")
        return self._sources[job.source]

    def _tell_failure(self, job: Job, failure: Failure) -> None:
        """More than once where it does not get there. Raises Gone."""
        for tried in range(TRIES):
            with suppress(Away):
                return self._client.tell_failure(self._fetch, job.number, failure)
            self._stop.wait(backoff_seconds(tried, longest=2.0))
        return None


def _small(source: Source, job: Job) -> bytes:
    if job.what == "listing":
        return remotes_text(source.listing()).encode()
    if job.what == "head":
        return json.dumps(remote_fields(source.head(job.path))).encode()
    return source.read(job.path, job.limit)
