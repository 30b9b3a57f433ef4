"""What is done about an event, wherever it came from: flush, forget features, count. Every consumer calls it, with bytes as they came."""

import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

from inference_cache_sidecar.counting import OTHER, Counts
from inference_cache_sidecar.errors import SidecarError, whereabouts
from inference_cache_sidecar.events.payloads import CHANNELS, BadEvent, Entity, Event, parse
from inference_cache_sidecar.flush import FlushRequest

_log = logging.getLogger(__name__)
_CHANNELS: Final = frozenset(CHANNELS)


class Outcome(StrEnum):
    """What became of an event, and what its consumer does then."""

    APPLIED = "applied"
    """Acknowledge."""
    BAD = "bad"
    """Put aside and acknowledge: no retry makes it better."""
    FAILED = "failed"
    """Try again later: acknowledging it would lose it."""


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
    """`flush` and `drop_entity` may be called again for the same event, and by several events at once."""

    def __init__(
        self,
        flush: Callable[[FlushRequest], Awaitable[object]],
        drop_entity: Callable[[Entity], Awaitable[None]],
        counts: EventCounts,
    ) -> None:
        self._flush = flush
        self._drop_entity = drop_entity
        self.counts = counts

    async def handle(self, channel: str, payload: bytes) -> Outcome:
        """Raises nothing: whatever goes wrong here is the consumer's to try again, never the sidecar's to die of."""
        outcome = await self._outcome(channel, payload)
        self.counts.handled(channel, outcome)
        return outcome

    async def _outcome(self, channel: str, payload: bytes) -> Outcome:
        try:
            await self._apply(parse(channel, payload))
        except BadEvent as bad:
            _log.warning("an event of %s is skipped: %s", _named(channel), bad.reason)
            return Outcome.BAD
        except SidecarError as error:
            # Its consumer warns, once for all that wait.
            _log.debug("an event of %s could not be carried out: %s", _named(channel), error)
            return Outcome.FAILED
        except Exception as error:
            _log.error("an event of %s failed: %s", _named(channel), whereabouts(error))
            return Outcome.FAILED
        return Outcome.APPLIED

    async def _apply(self, event: Event) -> None:
        # One after the other: consumers handle several events at once as it is.
        for request in event.flushes:
            await self._flush(request)
        for entity in event.entities:
            await self._drop_entity(entity)
        _log.debug("an event of %s was applied: %d flushes", event.channel, len(event.flushes))


def _named(channel: str) -> str:
    return channel if channel in _CHANNELS else OTHER
