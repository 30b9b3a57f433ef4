"""What a heartbeat says of a worker. Pure; `supervising` brings the clock."""

from enum import Enum, auto
from typing import Final

LATE_SECONDS: Final = 0.5
"""From here on new connections go past the worker."""
SUSPECT_SECONDS: Final = 0.6
"""From here on another worker is made ready, in case this one does not come back."""
REPLACED_SECONDS: Final = 1.5
"""From here on another worker that is ready takes its place."""
FROZEN_SECONDS: Final = 5.0
"""From here on it is taken for frozen in any case."""
START_SECONDS: Final = 60.0
"""A worker that does not take connections by then never will."""
OWN_DELAY_SECONDS: Final = 0.2
"""A supervisor that ran this much later than it wanted cannot tell whether the worker could have run."""


class Health(Enum):
    STARTING = auto()
    WELL = auto()
    LATE = auto()
    SUSPECT = auto()
    REPLACEABLE = auto()
    FROZEN = auto()


def health(accepting: bool, late_seconds: float, age_seconds: float) -> Health:
    """`late_seconds` since its last heartbeat, as `Punctuality` counts them; `age_seconds` since it was started."""
    if not accepting:
        return Health.FROZEN if age_seconds >= START_SECONDS else Health.STARTING
    if late_seconds < LATE_SECONDS:
        return Health.WELL
    if late_seconds < SUSPECT_SECONDS:
        return Health.LATE
    if late_seconds < REPLACED_SECONDS:
        return Health.SUSPECT
    return Health.REPLACEABLE if late_seconds < FROZEN_SECONDS else Health.FROZEN


class Punctuality:
    """Counts a worker's lateness only while the supervisor itself ran on time: both may have been stopped, or starved."""

    def __init__(self, tick_seconds: float, now: float) -> None:
        self._allowed = tick_seconds + OWN_DELAY_SECONDS
        self._ran = now
        self._on_time_since = now

    def ran(self, now: float) -> None:
        """At each turn of the supervisor."""
        if now - self._ran > self._allowed:
            self._on_time_since = now
        self._ran = now

    def late_seconds(self, beat: float, now: float) -> float:
        return max(0.0, now - max(beat, self._on_time_since))


class Backoff:
    """How long to wait before a worker that ended is started again: not at all, unless workers end again and again."""

    STEADY_SECONDS: Final = 10.0
    FIRST_SECONDS: Final = 0.25
    MOST_SECONDS: Final = 30.0

    def __init__(self) -> None:
        self._next = 0.0

    def after(self, lived_seconds: float) -> float:
        """Seconds to wait after one that lived so long."""
        if lived_seconds >= self.STEADY_SECONDS:
            self._next = 0.0
        wait = self._next
        self._next = min(max(wait * 2, self.FIRST_SECONDS), self.MOST_SECONDS)
        return wait
