"""Make a manifest of what a source has: every object streamed once, and hashed. Used by `manifest_command`."""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from inference_cache_artifacts.errors import BadRequest, Transient, Unreachable
from inference_cache_artifacts.making import Stopped, in_threads
from inference_cache_artifacts.manifest import FILE_NAME, File, Manifest, check_path, manifest_of
from inference_cache_artifacts.progress import Progress
from inference_cache_artifacts.source import Remote, Source

READERS: Final = 4
ATTEMPTS: Final = 6
"""In a row without a byte."""
BUFFER_BYTES: Final = 1 << 20
_MOST_SECONDS: Final = 10.0


class Reader:
    """Reads a source's files whole, whatever the connection does."""

    def __init__(self, source: Source, progress: Progress, wait: Callable[[float], None] = time.sleep) -> None:
        self._source = source
        self._progress = progress
        self._wait = wait

    def manifest(self) -> Manifest:
        """Raises BadRequest (the source cannot list), Missing, Forbidden, Changed, Unreachable, BadManifest."""
        listed = self._listing()
        if listed is None:
            raise BadRequest(f"{self._source.url} cannot list its files: make the manifest of the folder they are uploaded from")
        remotes = [each for each in listed if each.path != FILE_NAME]
        for remote in remotes:
            check_path(remote.path)
        self._progress.planned(len(remotes), sum(each.size for each in remotes), 0)
        return manifest_of(in_threads(self._file, remotes, READERS))

    def _file(self, remote: Remote, stop: threading.Event) -> File:
        digest, position, failures = hashlib.sha256(), 0, 0
        buffer = memoryview(bytearray(min(BUFFER_BYTES, remote.size)))
        while position < remote.size:
            before = position
            try:
                with self._source.open(remote, position, remote.size) as body:
                    while position < remote.size and (count := body.readinto(buffer)):
                        _go_on(stop)
                        digest.update(buffer[:count])
                        self._progress.received(count)
                        position += count
                error = Transient("the answer was cut off")
            except Transient as transient:
                error = transient
            _go_on(stop)
            if position < remote.size:
                failures = failures + 1 if position == before else 1
                self._failed(error, failures, remote.path)
        self._progress.verified(remote.path, remote.size)
        return File(remote.path, remote.size, digest.hexdigest())

    def _listing(self) -> Sequence[Remote] | None:
        failures = 0
        while True:
            try:
                return self._source.listing()
            except Transient as error:
                failures += 1
                self._failed(error, failures, "the list of files")

    def _failed(self, error: Transient, failures: int, what: str) -> None:
        """Wait before the next attempt. Raises Unreachable where there is none."""
        if failures >= ATTEMPTS:
            raise Unreachable(f"{self._source.url}: {what}: {error}")
        self._progress.noted("retry", file=what, source=self._source.url, failures=failures)
        self._wait(error.retry_after_seconds or min(_MOST_SECONDS, 0.2 * 2**failures) * random.uniform(0.5, 1))  # noqa: S311 - only spreads them


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped
