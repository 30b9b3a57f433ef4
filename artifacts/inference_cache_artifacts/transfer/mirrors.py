"""Which mirror is asked: the first that has not been given up. One that failed again and again is given up for all files.

The last one left is tried for longer: there is nothing to lose any more.
"""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from inference_cache_artifacts.errors import ArtifactError, Corrupt, Transient, Unreachable
from inference_cache_artifacts.source import Remote, Source

FAILURES: Final = 3
"""In a row and over all files, without a byte between, while there is another mirror."""
PATIENCE_SECONDS: Final = 120.0
"""For the last one, since its last byte."""


BURST_SECONDS: Final = 0.1


@dataclass(slots=True)
class Mirror:
    source: Source
    number: int
    failures: int = 0
    failing_since: float | None = None
    failed_at: float | None = None
    given_up: ArtifactError | None = None
    refused: dict[str, ArtifactError] = field(default_factory=dict)
    """Files that it does not have, or has otherwise."""


class Mirrors:
    """May be used by several threads."""

    def __init__(
        self, sources: Sequence[Source], patience_seconds: float = PATIENCE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._mirrors = [Mirror(source, number) for number, source in enumerate(sources)]
        self._patience = patience_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[int, str], Remote] = {}

    def best(self, path: str) -> Mirror:
        """Raises what kept the first mirror from giving this file, if none is left."""
        with self._lock:
            for mirror in self._mirrors:
                if mirror.given_up is None and path not in mirror.refused:
                    return mirror
            errors = [mirror.refused.get(path) or mirror.given_up for mirror in self._mirrors]
        raise _told(path, [each for each in errors if each is not None])

    def remote(self, mirror: Mirror, path: str) -> Remote:
        """As this mirror tells of it; asked once. Raises what Source.head raises."""
        key = (mirror.number, path)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            known = mirror.source.head(path)
            with self._lock:
                self._known[key] = known
        return known

    def learn(self, number: int, remotes: Sequence[Remote]) -> None:
        """What a listing told, so that `remote` need not ask."""
        with self._lock:
            self._known |= {(number, remote.path): remote for remote in remotes}

    def forget(self, mirror: Mirror, path: str) -> None:
        """The file is another one now: ask again."""
        with self._lock:
            self._known.pop((mirror.number, path), None)

    def gave_bytes(self, mirror: Mirror) -> None:
        if mirror.failures:
            with self._lock:
                mirror.failures, mirror.failing_since, mirror.failed_at = 0, None, None

    def failed(self, mirror: Mirror, error: Transient) -> int:
        """Failures in a row until now; afterwards it may be given up."""
        with self._lock:
            now = self._clock()
            # What breaks all connections at once is one failure.
            if mirror.failed_at is None or now - mirror.failed_at >= BURST_SECONDS:
                mirror.failures, mirror.failed_at = mirror.failures + 1, now
            mirror.failing_since = now if mirror.failing_since is None else mirror.failing_since
            is_last = not any(each.given_up is None for each in self._mirrors if each is not mirror)
            if now - mirror.failing_since >= self._patience or (mirror.failures >= FAILURES and not is_last):
                mirror.given_up = mirror.given_up or Unreachable(f"{mirror.source.url}: {error}")
            return mirror.failures

    def blame(self, path: str, numbers: Collection[int], problem: str, *, fetched_whole: bool) -> None:
        """The file turned out wrong. Where all of it came from one mirror in one go, that one has another file; else nobody knows."""
        if len(numbers) == 1 and fetched_whole:
            (number,) = numbers
            url = self._mirrors[number].source.url
            self.refuses(self._mirrors[number], path, Corrupt(f"{path}: from {url}: {problem}", path))

    def refuses(self, mirror: Mirror, path: str, error: ArtifactError) -> None:
        """This file it never gives, or not the right one."""
        with self._lock:
            mirror.refused[path] = error


def _told(path: str, errors: list[ArtifactError]) -> ArtifactError:
    """The first one's reason, which is the mirror that people mean; what the others said stands behind it."""
    first = errors[0]
    others = "".join(f"; {each}" for each in errors[1:] if str(each) != str(first))
    return type(first)(f"{first}{others}", first.file or path)
