"""What becomes of an event: carried out, skipped, or kept for another try; counted and logged without a word of what it said."""

import logging

import pytest

from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.events.handling import EventCounts, EventHandler, Outcome
from inference_cache_sidecar.events.payloads import Entity
from inference_cache_sidecar.events.retrying import Backoff
from inference_cache_sidecar.flush import FlushRequest

SECRET = "u-4711"
ACTIVITY = b'{"user_id": "u-4711"}'


class Recorder:
    """Stands where the flusher and the features are; raises `fault` if there is one."""

    def __init__(self) -> None:
        self.done: list[FlushRequest | Entity] = []
        self.fault: Exception | None = None

    async def do(self, what: FlushRequest | Entity) -> None:
        if self.fault is not None:
            raise self.fault
        self.done.append(what)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def handler(recorder: Recorder) -> EventHandler:
    return EventHandler(recorder.do, recorder.do, EventCounts())


async def test_activity_flushes_the_users_answers_and_then_forgets_the_features(recorder: Recorder, handler: EventHandler) -> None:
    assert await handler.handle("user_activity", ACTIVITY) is Outcome.APPLIED
    assert recorder.done == [FlushRequest("tag", "user:u-4711"), Entity("user_id", "u-4711")]
    assert handler.counts.outcomes[Outcome.APPLIED]["user_activity"] == 1


async def test_a_bad_event_is_skipped_and_told_without_what_it_said(
    recorder: Recorder, handler: EventHandler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert await handler.handle("user_activity", b'{"user": "u-4711"}') is Outcome.BAD
    assert recorder.done == []
    assert handler.counts.outcomes[Outcome.BAD]["user_activity"] == 1
    assert "user_id: missing" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("fault", [StoreUnavailable("the shared store is not there"), ValueError(SECRET)], ids=["store", "defect"])
async def test_what_could_not_be_done_is_for_another_try(
    recorder: Recorder, handler: EventHandler, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    caplog.set_level(logging.DEBUG)
    recorder.fault = fault
    assert await handler.handle("user_activity", ACTIVITY) is Outcome.FAILED
    recorder.fault = None
    assert await handler.handle("user_activity", ACTIVITY) is Outcome.APPLIED
    assert handler.counts.outcomes[Outcome.FAILED]["user_activity"] == 1
    assert SECRET not in caplog.text


async def test_features_are_not_forgotten_before_the_flush_is_done(recorder: Recorder) -> None:
    dropped: list[Entity] = []

    async def drop(entity: Entity) -> None:
        dropped.append(entity)

    recorder.fault = StoreUnavailable("the shared store is not there")
    assert await EventHandler(recorder.do, drop, EventCounts()).handle("user_activity", ACTIVITY) is Outcome.FAILED
    assert dropped == []


async def test_channels_that_nobody_knows_cannot_fill_the_counts(handler: EventHandler) -> None:
    for number in range(100):
        assert await handler.handle(f"channel-{number}", b"{}") is Outcome.BAD
    assert dict(handler.counts.outcomes[Outcome.BAD].items()) == {"model_updates": 0, "user_activity": 0, "kb_updates": 0, "other": 100}


def test_waits_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(first_seconds=1.0, longest_seconds=8.0)
    waits = [backoff.next_seconds() for _ in range(100)]
    for wait, longest in zip(waits, [1, 2, 4, 8, 8], strict=False):
        assert longest / 2 <= wait <= longest
    assert max(waits) <= 8
    backoff.reset()
    assert backoff.next_seconds() <= 1
