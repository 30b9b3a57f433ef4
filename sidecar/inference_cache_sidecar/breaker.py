"""Stops asking what keeps failing: after some failures in a row every call is refused at once, but for a trial now and then."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    failures: int = 3
    """In a row, until it opens: what a hang costs is this many deadlines."""
    retry_seconds: float = 5.0
    """Between trials while it is open."""


class Breaker:
    """For one thread. Every `allows` that was True is followed by `succeeded` or `failed`, or by neither if the caller left."""

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._failures = 0
        self._next_trial = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= self._settings.failures

    def allows(self) -> bool:
        """While open, True for one call each `retry_seconds`: the trial."""
        if not self.is_open:
            return True
        if self._clock() < self._next_trial:
            return False
        self._put_off()
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._put_off()

    def _put_off(self) -> None:
        self._next_trial = self._clock() + self._settings.retry_seconds
