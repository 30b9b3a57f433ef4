"""The counts of events as metrics. `app` hands them to the exposition."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from inference_cache_sidecar.counting import Counts
from inference_cache_sidecar.events.handling import EventCounts, Outcome
from inference_cache_sidecar.exposition import Counters, Reading

_OUTCOMES: Final = {
    Outcome.APPLIED: "Events that were carried out.",
    Outcome.BAD: "Events that could not be used.",
    Outcome.FAILED: "Tries to carry out an event that the shared store failed.",
    Outcome.BROKEN: "Tries to carry out an event that failed in a way nobody foresaw.",
}


def readings(counts: EventCounts) -> Iterator[Reading]:
    for outcome, told in _OUTCOMES.items():
        yield Counters(f"events_{outcome}", told, "channel", _reader(counts.outcomes[outcome]))
    yield Counters(
        "event_interruptions", "How often reading events broke off, or could not begin.", "source", _reader(counts.interruptions)
    )
    yield Counters("event_dead_letters", "Bad events that were put aside.", "source", _reader(counts.dead_letters))


def _reader(counts: Counts) -> Callable[[], Mapping[str, float]]:
    return lambda: dict(counts.items())
