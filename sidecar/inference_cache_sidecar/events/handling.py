"""What becomes of an event, wherever it came from: checked, carried out, counted. Every consumer calls it, with bytes as they came."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from inference_cache_sidecar.counting import OTHER, Counts
from inference_cache_sidecar.errors import SidecarError, whereabouts
from inference_cache_sidecar.events.payloads import CHANNELS, BadEvent, Event, parse

_log = logging.getLogger(__name__)
_CHANNELS: Final = frozenset(CHANNELS)


class Outcome(StrEnum):
    """What became of an event, and what its consumer does then."""

    APPLIED = "applied"
    """Acknowledge."""
    BAD = "bad"
    """Put aside and acknowledge: no retry makes it better."""
    FAILED = "failed"
    """Try again later, as long as it takes: acknowledging it would lose it."""
    BROKEN = "broken"
    """An error that nobody foresaw. Try again, but not for ever: it may be the event's fault."""


@dataclass(frozen=True, slots=True)
class Handled:
    outcome: Outcome
    reason: str = ""
    """Why it is not applied; quotes nothing that the producer wrote."""


_APPLIED: Final = Handled(Outcome.APPLIED)


class EventCounts:
    """Since start. Used on one thread."""

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, Counts] = {outcome: Counts(CHANNELS) for outcome in Outcome}
        """By channel; each failed try counts."""
        self.interruptions = Counts()
        """By source (`kafka` …): how often reading from it broke off, or could not begin."""
        self.dead_letters = Counts()
        """By source: bad events that were put aside."""

    def handled(self, channel: str, outcome: Outcome) -> None:
        self.outcomes[outcome].add(channel if channel in _CHANNELS else OTHER)


class EventHandler:
    """`apply` may be called again for the same event, and by several events at once."""

    def __init__(self, apply: Callable[[Event], Awaitable[None]], counts: EventCounts) -> None:
        self._apply = apply
        self.counts = counts

    async def handle(self, channel: str, payload: bytes) -> Handled:
        """Raises nothing: whatever goes wrong here is the consumer's to try again, never the sidecar's to die of."""
        handled = await self._handled(channel, payload)
        self.counts.handled(channel, handled.outcome)
        return handled

    async def _handled(self, channel: str, payload: bytes) -> Handled:
        try:
            await self._apply(parse(channel, payload))
        except BadEvent as bad:
            _log.warning("an event of %s is skipped: %s", _named(channel), bad.reason)
            return Handled(Outcome.BAD, bad.reason)
        except SidecarError as error:
            # Its consumer warns, once for all that wait.
            _log.debug("an event of %s could not be carried out: %s", _named(channel), error)
            return Handled(Outcome.FAILED, str(error))
        except Exception as error:
            _log.error("an event of %s failed: %s", _named(channel), whereabouts(error))
            return Handled(Outcome.BROKEN, whereabouts(error))
        return _APPLIED


def _named(channel: str) -> str:
    return channel if channel in _CHANNELS else OTHER
