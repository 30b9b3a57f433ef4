"""How fast bytes may come, and how long to wait after a failure."""

import random
import threading
import time
from collections.abc import Callable
from typing import Final

_BURST_SECONDS: Final = 0.25


class Limiter:
    """At most so many bytes a second over all threads that ask; None: as many as come."""

    def __init__(self, bytes_per_second: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()
        """When all that was taken until now will have been paid for."""

    def seconds_for(self, count: int) -> float:
        """How long to wait after `count` bytes more."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - _BURST_SECONDS) + count / self._rate
            return max(0.0, self._free_at - now)


def backoff_seconds(failures: int, retry_after_seconds: float | None = None, first: float = 0.2, longest: float = 10.0) -> float:
    """Before the next attempt: twice as long at most each time, by chance between nothing and that (full jitter, as AWS names it).

    What the source asks for is waited in any case, and a little more, so that not all come back at once.
    """
    chance = random.uniform(0.0, min(longest, first * 2.0 ** min(failures, 16)))  # noqa: S311  no secret
    return chance if retry_after_seconds is None else retry_after_seconds + min(chance, 1.0)
