"""A library that repeats itself is heard once a minute."""

import logging

import pytest

from inference_cache_sidecar.events.kafka_log import SECONDS, Seldom, calm_down


def test_a_place_is_heard_again_when_it_has_been_silent_long_enough(caplog: pytest.LogCaptureFixture) -> None:
    handler = Seldom()
    for line, moment in ((1, 1000.0), (1, 1001.0), (2, 1002.0), (1, 1000.0 + SECONDS), (1, 1001.0 + SECONDS)):
        handler.emit(record(line, moment))
    assert [message.split(" ", 1)[1] for message in caplog.messages] == ["line 1 at 1000", "line 2 at 1002", "line 1 at 1060"]


def test_what_the_library_sends_and_receives_is_logged_at_no_level() -> None:
    calm_down()
    calm_down()
    library = logging.getLogger("aiokafka")
    assert not logging.getLogger("aiokafka.conn").isEnabledFor(logging.INFO)
    assert len([handler for handler in library.handlers if isinstance(handler, Seldom)]) == 1


def record(line: int, moment: float) -> logging.LogRecord:
    made = logging.LogRecord("aiokafka.client", logging.ERROR, "client.py", line, "line %d at %d", (line, moment), None)
    made.created = moment
    return made
