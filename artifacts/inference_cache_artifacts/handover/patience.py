"""How long a pod waits for an agent that is away. Used by `asking`."""

import time
from collections.abc import Callable
from typing import Final

from inference_cache_artifacts.errors import TimedOut
from inference_cache_artifacts.handover.client import Away
from inference_cache_artifacts.progress import Progress
from inference_cache_artifacts.transfer.limiting import backoff_seconds

AWAY_SECONDS: Final = 10.0
_LONGEST_SECONDS: Final = 2.0


class Deadline:
    """For all of it; None is no limit."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def left_seconds(self) -> float | None:
        """Above 0."""
        return None if self._end is None else max(0.001, self._end - time.monotonic())

    def check(self, what: str) -> None:
        """Raises TimedOut."""
        if self._end is not None and time.monotonic() > self._end:
            raise TimedOut(f"it took longer than {self._seconds:g} s: {what}")


class Patience:
    """Of one fetch."""

    def __init__(
        self,
        deadline: Deadline,
        progress: Progress,
        away_seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`away_seconds` None: until the deadline."""
        self._deadline = deadline
        self._progress = progress
        self._away_seconds = away_seconds
        self._clock = clock
        self._sleep = sleep
        self._since: float | None = None
        self._failures = 0

    def well(self) -> None:
        """The agent has answered."""
        self._since, self._failures = None, 0

    def wait(self, error: Away) -> None:
        """A while. Raises the error where the agent has been away for too long, TimedOut."""
        now = self._clock()
        if self._since is None:
            self._since = now
            self._progress.noted("waiting", why=str(error))
        if self._away_seconds is not None and now - self._since > self._away_seconds:
            raise error
        self._failures += 1
        self._sleep(self._bounded(backoff_seconds(self._failures, longest=_LONGEST_SECONDS)))
        self._deadline.check(str(error))

    def _bounded(self, seconds: float) -> float:
        left = self._deadline.left_seconds
        return seconds if left is None else min(seconds, left)
