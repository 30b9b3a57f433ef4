"""A pod carries out the agent's jobs with its own sources: what it sends, and what it makes of what goes wrong."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.artifacts.fake_agent import FakeAgent, Result, fake_agent
from tests.artifacts.fake_source import FakeSource

from inference_cache_artifacts.errors import ArtifactError, BadManifest, Changed, Forbidden, Missing, Transient
from inference_cache_artifacts.handover import relaying
from inference_cache_artifacts.handover.client import Client
from inference_cache_artifacts.handover.contact import Contact
from inference_cache_artifacts.handover.failures import error_of, failure_of
from inference_cache_artifacts.handover.protocol import Failure, Job, What, read_remote, read_remotes
from inference_cache_artifacts.handover.relaying import Relay
from inference_cache_artifacts.source import Checksum, Remote

SECONDS = 60.0
FILES = {"config.json": b"{}", "weights.bin": bytes(range(256)) * 5000, "empty": b""}
REMOTE = Remote("weights.bin", len(FILES["weights.bin"]), '"weights.bin-1"')
FETCH = "fetch-1"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread outlives its test: all end at once, if the machine lets them."""
    monkeypatch.setattr(relaying, "END_SECONDS", SECONDS)


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    with fake_agent() as agent:
        agent.known.add(FETCH)
        yield agent


@pytest.fixture
def contact(agent: FakeAgent, tmp_path: Path) -> Contact:
    (tmp_path / "token").write_text("a-token\n")
    return Contact(agent.url, tmp_path / "token")


@pytest.fixture
def relayed(agent: FakeAgent, contact: Contact) -> Callable[..., list[Result]]:
    """Has jobs carried out with a source; what the agent got of each."""

    def relayed(source: FakeSource, *jobs: Job, rate: float | None = None) -> list[Result]:
        agent.jobs.extend(jobs)
        with relay(contact, source, rate):
            until(lambda: len(agent.results) == len(jobs))
        return [agent.results[job.number] for job in jobs]

    return relayed


@contextmanager
def relay(contact: Contact, source: FakeSource, rate: float | None = None) -> Iterator[Relay]:
    client = Client(contact, 4)
    made = Relay(client, FETCH, [source], rate)
    made.begin(2)
    try:
        yield made
    finally:
        client.leave(FETCH)
        made.end()
        client.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_listing_a_head_and_a_small_file_are_told(relayed: Callable[..., list[Result]]) -> None:
    source = FakeSource(FILES, checksums={"config.json": Checksum("crc32", b"1234")})
    listing, head, small = relayed(source, Job(1, 0, "listing"), Job(2, 0, "head", "config.json"), Job(3, 0, "read", "config.json", 100))
    assert {each.path: each.size for each in read_remotes(listing.body) or ()} == {path: len(body) for path, body in FILES.items()}
    assert read_remote(json.loads(head.body)) == Remote("config.json", 2, '"config.json-1"', Checksum("crc32", b"1234"))
    assert small.body == b"{}"


def test_a_source_that_cannot_list_says_so(relayed: Callable[..., list[Result]]) -> None:
    (result,) = relayed(FakeSource(FILES, lists=False), Job(1, 0, "listing"))
    assert read_remotes(result.body) is None


def test_a_range_comes_as_it_is(relayed: Callable[..., list[Result]]) -> None:
    source = FakeSource(FILES)
    whole, part = relayed(
        source, Job(1, 0, "open", remote=REMOTE, start=0, end=REMOTE.size), Job(2, 0, "open", remote=REMOTE, start=7, end=600_001)
    )
    assert (whole.body, whole.whole) == (FILES["weights.bin"], True)
    assert (part.body, part.whole) == (FILES["weights.bin"][7:600_001], True)


@pytest.mark.parametrize("with_error", [True, False], ids=["an error", "an early end"])
def test_a_range_that_breaks_off_ends_early(relayed: Callable[..., list[Result]], with_error: bool) -> None:
    source = FakeSource(FILES, cut_after=500_000, cuts_with_error=with_error)
    (result,) = relayed(source, Job(1, 0, "open", remote=REMOTE, start=0, end=REMOTE.size))
    assert not result.whole
    assert result.body == FILES["weights.bin"][:500_000]


def test_a_range_that_breaks_off_before_its_first_byte_is_a_failure(relayed: Callable[..., list[Result]]) -> None:
    source = FakeSource(FILES, cut_after=0, cuts_with_error=False)
    (result,) = relayed(source, Job(1, 0, "open", remote=REMOTE, start=0, end=REMOTE.size))
    assert result.failure == Failure("Transient", "an answer ended before its first byte")


@pytest.mark.parametrize(
    ("job", "reason", "file"),
    [
        pytest.param(Job(1, 0, "head", "no-such"), "Missing", "no-such", id="missing"),
        pytest.param(Job(1, 0, "open", remote=replace(REMOTE, etag='"other"'), end=5), "Changed", "weights.bin", id="changed"),
        pytest.param(Job(1, 7, "listing"), "BadRequest", None, id="no-such-source"),
        pytest.param(Job(1, 0, "open"), "BadRequest", None, id="a-range-of-nothing"),
    ],
)
def test_what_the_source_says_is_told_with_its_reason(
    relayed: Callable[..., list[Result]], job: Job, reason: str, file: str | None
) -> None:
    (result,) = relayed(FakeSource(FILES), job)
    assert result.failure is not None
    assert (result.failure.reason, result.failure.file) == (reason, file)


def test_what_may_go_better_next_time_is_told_with_the_time_to_wait(relayed: Callable[..., list[Result]]) -> None:
    class Busy(FakeSource):
        def head(self, path: str) -> Remote:
            raise Transient("503", 7.0)

    (result,) = relayed(Busy(FILES), Job(1, 0, "head", "config.json"))
    assert result.failure == Failure("Transient", "503", None, 7.0)


def test_a_mistake_of_ours_is_not_told_as_the_sources(agent: FakeAgent, contact: Contact) -> None:
    class Wrong(FakeSource):
        def head(self, path: str) -> Remote:
            raise ZeroDivisionError("ours")

    agent.jobs.append(Job(1, 0, "head", "config.json"))
    with relay(contact, Wrong(FILES)) as begun, pytest.raises(ZeroDivisionError):
        begun.wait(SECONDS)
    assert agent.results == {}


def test_a_token_that_the_agent_refuses_is_not_told_as_the_sources(agent: FakeAgent, contact: Contact) -> None:
    class Late(FakeSource):
        def head(self, path: str) -> Remote:
            agent.token = "another"
            return super().head(path)

    agent.jobs.append(Job(1, 0, "head", "config.json"))
    with relay(contact, Late(FILES)) as begun, pytest.raises(Forbidden, match="--agent-token"):
        begun.wait(SECONDS)
    assert agent.results == {}


def test_a_result_that_nobody_waits_for_is_given_up(agent: FakeAgent, contact: Contact) -> None:
    agent.wants = lambda number: number != 1
    agent.jobs.extend([Job(1, 0, "open", remote=REMOTE, end=REMOTE.size), Job(2, 0, "head", "config.json")])
    with relay(contact, FakeSource(FILES)):
        until(lambda: 2 in agent.results)
    assert 1 not in agent.results


@pytest.mark.parametrize("what", ["open", "head"])
def test_what_is_lost_on_its_way_is_told_as_something_to_try_again(
    agent: FakeAgent, relayed: Callable[..., list[Result]], what: What
) -> None:
    agent.breaks_off = {1}
    (result,) = relayed(FakeSource(FILES), Job(1, 0, what, REMOTE.path, remote=REMOTE, end=REMOTE.size))
    assert result.failure is not None
    assert result.failure.reason == "Transient"


def test_the_rate_holds_for_all_that_is_relayed(relayed: Callable[..., list[Result]]) -> None:
    began = time.monotonic()
    rate = len(FILES["weights.bin"])
    results = relayed(FakeSource(FILES), *(Job(number, 0, "open", remote=REMOTE, end=rate) for number in (1, 2)), rate=rate)
    assert time.monotonic() - began > 1.2
    assert all(result.whole for result in results)


def test_an_agent_that_was_away_is_asked_again(agent: FakeAgent, contact: Contact) -> None:
    agent.status = 503
    with relay(contact, FakeSource(FILES)):
        until(lambda: len(agent.requests) > 3)
        agent.jobs.append(Job(1, 0, "head", "config.json"))
        agent.status = None
        until(lambda: 1 in agent.results)


def test_it_ends_at_once_amid_a_range(agent: FakeAgent, contact: Contact) -> None:
    begun = threading.Event()
    source = FakeSource(FILES, on_open=lambda path, start: begun.set())
    agent.jobs.append(Job(1, 0, "open", remote=REMOTE, end=REMOTE.size))
    with relay(contact, source, rate=1000.0):
        assert begun.wait(SECONDS)
        until(lambda: source.opened != [])
    until(lambda: 1 in agent.results)
    assert not agent.results[1].whole


@pytest.mark.parametrize("error", [Missing("a: gone", "a"), Changed("b: another", "b"), BadManifest("c"), Forbidden("d", None)])
def test_errors_survive_the_way(error: ArtifactError) -> None:
    back = error_of(failure_of(error))
    assert (type(back), str(back), back.file) == (type(error), str(error), error.file)


def test_a_reason_that_is_not_known_here_is_an_error_all_the_same() -> None:
    back = error_of(Failure("MeltedDown", "the node is hot", "a"))
    assert (back.reason, str(back), back.file) == ("Failed", "MeltedDown: the node is hot", "a")
