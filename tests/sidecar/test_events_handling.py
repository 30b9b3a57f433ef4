"""What becomes of an event: carried out, skipped, or kept for another try; counted and logged without a word of what it said."""

import logging

import pytest

from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.events.handling import EventCounts, EventHandler, Outcome
from inference_cache_sidecar.events.payloads import Entity, Event
from inference_cache_sidecar.events.retrying import Backoff
from inference_cache_sidecar.flush import FlushRequest

SECRET = "u-4711"
ACTIVITY = b'{"user_id": "u-4711"}'


class Recorder:
    """Stands where events are carried out; raises `fault` if there is one."""

    def __init__(self) -> None:
        self.done: list[Event] = []
        self.fault: Exception | None = None

    async def do(self, event: Event) -> None:
        if self.fault is not None:
            raise self.fault
        self.done.append(event)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def handler(recorder: Recorder) -> EventHandler:
    return EventHandler(recorder.do, EventCounts())


async def test_activity_is_carried_out_and_counted(recorder: Recorder, handler: EventHandler) -> None:
    assert (await handler.handle("user_activity", ACTIVITY)).outcome is Outcome.APPLIED
    assert recorder.done == [Event("user_activity", (FlushRequest("tag", "user:u-4711"),), (Entity("user_id", "u-4711"),))]
    assert handler.counts.outcomes[Outcome.APPLIED]["user_activity"] == 1


async def test_a_bad_event_is_skipped_and_told_without_what_it_said(
    recorder: Recorder, handler: EventHandler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    handled = await handler.handle("user_activity", b'{"user": "u-4711"}')
    assert (handled.outcome, handled.reason) == (Outcome.BAD, "user_id: missing")
    assert recorder.done == []
    assert handler.counts.outcomes[Outcome.BAD]["user_activity"] == 1
    assert "user_id: missing" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        pytest.param(StoreUnavailable("the shared store is not there"), Outcome.FAILED, id="store"),
        pytest.param(ValueError(SECRET), Outcome.BROKEN, id="defect"),
    ],
)
async def test_what_could_not_be_done_is_for_another_try(
    recorder: Recorder, handler: EventHandler, caplog: pytest.LogCaptureFixture, fault: Exception, outcome: Outcome
) -> None:
    caplog.set_level(logging.DEBUG)
    recorder.fault = fault
    handled = await handler.handle("user_activity", ACTIVITY)
    assert handled.outcome is outcome
    recorder.fault = None
    assert (await handler.handle("user_activity", ACTIVITY)).outcome is Outcome.APPLIED
    assert handler.counts.outcomes[outcome]["user_activity"] == 1
    assert SECRET not in caplog.text + handled.reason


async def test_channels_that_nobody_knows_cannot_fill_the_counts(handler: EventHandler) -> None:
    for number in range(100):
        assert (await handler.handle(f"channel-{number}", b"{}")).outcome is Outcome.BAD
    assert dict(handler.counts.outcomes[Outcome.BAD].items()) == {"model_updates": 0, "user_activity": 0, "kb_updates": 0, "other": 100}


def test_waits_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(first_seconds=1.0, longest_seconds=8.0)
    waits = [backoff.next_seconds() for _ in range(100)]
    for wait, longest in zip(waits, [1, 2, 4, 8, 8], strict=False):
        assert longest / 2 <= wait <= longest
    assert max(waits) <= 8
    backoff.reset()
    assert backoff.next_seconds() <= 1
