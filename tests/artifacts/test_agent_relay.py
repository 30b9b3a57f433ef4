"""When an agent stops waiting for a pod, and what it makes of a pod's errors."""

import asyncio
from unittest import mock

import pytest
from aiohttp import StreamReader

from inference_cache_artifacts import errors
from inference_cache_artifacts.agent.relay import Abandoned, Call, Relay, why_gone, why_slow
from inference_cache_artifacts.agent.relaying import error_of
from inference_cache_artifacts.agent.settings import Patience
from inference_cache_artifacts.errors import Transient
from inference_cache_artifacts.handover.protocol import Failure, Job


@pytest.mark.parametrize(
    ("seen_at", "heard_at", "is_taken", "gone"),
    [
        pytest.param(99, 99, False, False, id="just-offered"),
        pytest.param(80, 99, False, False, id="offered-long-ago-to-a-pod-that-is-busy"),
        pytest.param(80, 85, False, True, id="nobody-is-there"),
        pytest.param(99.5, 10, False, False, id="a-new-job-gets-a-moment"),
        pytest.param(98, 10, False, True, id="and-no-more"),
        pytest.param(80, 10, True, False, id="taken-and-it-may-take-a-while"),
        pytest.param(10, 71, True, False, id="taken-long-ago-by-a-pod-that-is-heard-of"),
        pytest.param(69, 69, True, True, id="taken-and-silent"),
    ],
)
def test_a_pod_is_gone_when_it_takes_nothing_or_sends_nothing(seen_at: float, heard_at: float, is_taken: bool, gone: bool) -> None:
    assert (why_gone(100, seen_at, heard_at, Patience(), is_taken=is_taken) is not None) == gone


@pytest.mark.parametrize(
    ("seen_at", "is_taken", "is_begun", "slow"),
    [
        pytest.param(120, True, False, False, id="its-source-may-take-a-while"),
        pytest.param(79, True, False, True, id="and-no-longer"),
        pytest.param(171, True, True, False, id="bytes-come"),
        pytest.param(169, True, True, True, id="no-more-bytes-come"),
        pytest.param(10, False, False, False, id="nobody-took-it"),
    ],
)
def test_a_pod_is_asked_again_where_nothing_comes(seen_at: float, is_taken: bool, is_begun: bool, slow: bool) -> None:
    assert (why_slow(200, seen_at, Patience(), is_taken=is_taken, is_begun=is_begun) is not None) == slow


async def test_a_body_is_read_by_one_alone_when_the_fetch_ends() -> None:
    relay, content = Relay(asyncio.get_running_loop(), Patience()), StreamReader(mock.Mock(), 1 << 16)

    def read() -> None:
        job = Job(relay.number(), 0, "read", "config.json", 100)
        with relay.ask(job) as (call, body):
            relay.more(call, body)

    engine = asyncio.create_task(asyncio.to_thread(read))
    job = await relay.take()
    assert job is not None
    answering = asyncio.create_task(relay.answered(job.number, content))
    while content._waiter is None:
        await asyncio.sleep(0)
    relay.end()
    assert await answering is False
    with pytest.raises(Transient):
        await engine
    with pytest.raises(Abandoned):
        await asyncio.to_thread(read)


async def test_an_answer_that_comes_as_nobody_waits_any_more_is_not_taken() -> None:
    relay, call = Relay(asyncio.get_running_loop(), Patience()), Call(Job(1, 0, "read"))
    relay._offer(call)
    call.answer.cancel()
    assert await relay.answered(1, StreamReader(mock.Mock(), 1 << 16)) is False
    assert relay.failed(1, Transient("503")) is False


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        pytest.param("Missing", errors.Missing, id="missing"),
        pytest.param("Forbidden", errors.Forbidden, id="forbidden"),
        pytest.param("Changed", errors.Changed, id="changed"),
        pytest.param("NoSpace", errors.Unreachable, id="not-the-sources"),
        pytest.param("ArtifactError", errors.Unreachable, id="no-kind"),
        pytest.param("os", errors.Unreachable, id="no-error"),
    ],
)
def test_an_error_keeps_its_kind_where_a_source_may_have_it(kind: str, made: type[errors.ArtifactError]) -> None:
    error = error_of(kind, Failure(kind, "it is so", "config.json"))
    assert type(error) is made
    assert isinstance(error, errors.ArtifactError)
    assert (str(error), error.file) == ("it is so", "config.json")


def test_what_may_go_better_next_time_tells_when() -> None:
    error = error_of("Transient", Failure("Transient", "503", None, 2.5))
    assert isinstance(error, Transient)
    assert error.retry_after_seconds == 2.5
