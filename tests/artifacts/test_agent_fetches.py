"""Pods ask the agent, which fetches through them: once, whoever goes away meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import urllib3
from tests.artifacts.fake_source import FakeSource
from tests.artifacts.fetched import content, manifest, model, nothing_published
from tests.artifacts.played_pod import SOURCE, PlayedPod, ask_for
from tests.artifacts.running_agent import RunningAgent, running_agent

from inference_cache_artifacts.errors import Forbidden
from inference_cache_artifacts.handover import protocol
from inference_cache_artifacts.manifest import FILE_NAME
from inference_cache_artifacts.names import tree_name
from inference_cache_artifacts.source import Remote
from inference_cache_artifacts.store import trees, using
from inference_cache_artifacts.transfer.pieces import BUFFER_BYTES

pytestmark = pytest.mark.services
QUICK = {"away": 5.0, "silent": 20.0, "job": 1.0}
PATIENT = {"away": 60.0, "silent": 60.0, "job": 1.0}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    with running_agent(tmp_path, **PATIENT) as running:
        yield running


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def asked_for_a_job(pod: PlayedPod, fetch: str) -> int:
    """The status, once there is a job, or there will be none any more."""
    until = time.monotonic() + 60
    while (status := pod.request("GET", protocol.JOB.format(fetch=fetch)).status) == 204:
        assert time.monotonic() < until
    return status


def test_a_pod_has_its_tree_fetched_with_its_own_source(agent: RunningAgent) -> None:
    files = model()
    ask = ask_for(manifest(files), holder="a.llama")
    ended = PlayedPod(agent.url).fetched(ask, FakeSource(files))
    store = agent.store("a")
    tree = trees.find(store, ask.tree)
    assert ended.state == "done", ended
    assert ended.progress["bytes"] == ended.progress["totalBytes"] == sum(map(len, files.values()))
    assert tree is not None
    assert content(tree) == files
    assert using.users(store, ask.tree) == {"a.llama"}
    assert {path.stat().st_mode & 0o444 for path in tree.files.rglob("*")} == {0o444}


def test_a_tree_that_is_there_is_told_of_and_marked_at_once(agent: RunningAgent) -> None:
    files = model()
    ask = ask_for(manifest(files), holder="a.first")
    assert PlayedPod(agent.url).fetched(ask, FakeSource(files)).state == "done"
    answer = PlayedPod(agent.url).ask(replace(ask, holder="a.second"))
    assert answer.status == 200
    assert protocol.read_summary(answer.data).digest == manifest(files).digest
    assert using.users(agent.store("a"), ask.tree) == {"a.first", "a.second"}


def test_the_manifest_beside_the_files_is_read_through_the_pod(agent: RunningAgent) -> None:
    files = model()
    beside = files | {FILE_NAME: manifest(files).text().encode()}
    ask = ask_for(None)
    assert PlayedPod(agent.url).fetched(ask, FakeSource(beside)).state == "done"
    tree = trees.find(agent.store("a"), ask.tree)
    assert tree is not None
    assert content(tree) == files


def test_twenty_pods_ask_at_once_and_every_byte_is_read_once(agent: RunningAgent) -> None:
    files = model(big=6 << 20)
    ask, source = ask_for(manifest(files), holder="a.llama"), FakeSource(files)
    states: list[str] = []
    threads = [threading.Thread(target=lambda: states.append(PlayedPod(agent.url).fetched(ask, source).state)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert states == ["done"] * 20
    assert source.sent == sum(map(len, files.values()))


def test_where_a_pod_dies_half_way_another_goes_on(tmp_path: Path) -> None:
    files = model(big=12 << 20)
    size = sum(map(len, files.values()))
    ask, source = ask_for(manifest(files)), FakeSource(files)
    with running_agent(tmp_path, **QUICK) as agent:
        dying, other = PlayedPod(agent.url, dies_after=size // 2), PlayedPod(agent.url)
        first = dying.begin(ask)
        with dying.at_work(first, source):
            assert dying.dead.wait(60)
        ended, broken = other.fetched(ask, source), other.standing(first)
    assert ended.state == "done"
    assert broken.failure is not None
    assert broken.failure.reason in {"Unreachable", "Abandoned"}
    assert (broken.progress["receivedBytes"] or 0) > 0
    assert (broken.progress["receivedBytes"] or 0) + (ended.progress["receivedBytes"] or 0) <= 1.05 * size


@pytest.mark.slow
def test_a_pod_that_is_not_heard_of_is_given_up(tmp_path: Path) -> None:
    files = model()
    with running_agent(tmp_path, given_up=3.0, away=60.0) as agent:
        silent = PlayedPod(agent.url)
        fetch = silent.begin(ask_for(manifest(files)))
        wait_until(lambda: any(agent.store("a").leases.glob("*.1")))
        assert PlayedPod(agent.url).fetched(ask_for(manifest(files)), FakeSource(files)).state == "done"
        assert silent.ended(fetch).state == "failed"


def test_a_pod_that_leaves_ends_its_fetch(agent: RunningAgent) -> None:
    pod = PlayedPod(agent.url)
    fetch = pod.begin(ask_for(manifest(model())))
    assert pod.request("DELETE", protocol.FETCH.format(fetch=fetch)).status == 204
    assert pod.ended(fetch).state == "failed"
    assert pod.request("GET", protocol.JOB.format(fetch=fetch)).status == 410


def test_a_job_is_waited_for_and_then_there_is_none(agent: RunningAgent) -> None:
    pod, other = PlayedPod(agent.url), PlayedPod(agent.url)
    ask = ask_for(manifest(model()))
    first = pod.begin(ask)
    assert asked_for_a_job(pod, first) == 200
    second = other.begin(ask)
    assert other.request("GET", protocol.JOB.format(fetch=second)).status == 204


def test_corrupt_content_is_told_and_nothing_is_published(agent: RunningAgent) -> None:
    files = model()
    name = "model-00001-of-00002.safetensors"
    wrong = files | {name: files[name][:-1] + bytes([files[name][-1] ^ 1])}
    ended = PlayedPod(agent.url).fetched(ask_for(manifest(files)), FakeSource(wrong))
    assert ended.failure is not None
    assert (ended.state, ended.failure.reason, ended.failure.file) == ("failed", "Corrupt", name)
    assert nothing_published(agent.store("a"))


def test_what_the_source_refuses_is_told_by_its_own_name(agent: RunningAgent) -> None:
    class Closed(FakeSource):
        def head(self, path: str) -> Remote:
            raise Forbidden(f"{path}: the source refuses it (403)", path)

    ended = PlayedPod(agent.url).fetched(ask_for(manifest(model())), Closed(model()))
    assert ended.failure is not None
    assert ended.failure.reason == "Forbidden"


def test_a_source_that_fails_for_a_while_and_cuts_answers_is_read_on(agent: RunningAgent) -> None:
    files = model()
    source = FakeSource(files, failures=3, cut_after=1 << 20, cuts_with_error=False)
    assert PlayedPod(agent.url).fetched(ask_for(manifest(files)), source).state == "done"
    assert source.sent <= 1.05 * sum(map(len, files.values()))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("../../../b/trees/x", id="upward"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("a//b", id="empty-part"),
        pytest.param("a\x00b", id="zero"),
    ],
)
def test_a_listing_that_leads_out_of_the_store_is_refused(agent: RunningAgent, path: str) -> None:
    class Tricky(FakeSource):
        def listing(self) -> list[Remote]:
            return [Remote(path, 5)]

    ask = replace(ask_for(None), verify=False, tree=tree_name((SOURCE,), "v1", "", verified=False))
    ended = PlayedPod(agent.url).fetched(ask, Tricky({path: b"12345"}))
    assert ended.failure is not None
    assert ended.failure.reason == "BadManifest"
    assert nothing_published(agent.store("a"))


def test_another_agent_goes_on_where_one_was_ended(tmp_path: Path) -> None:
    files = model(big=12 << 20)
    size = sum(map(len, files.values()))
    ask, source = ask_for(manifest(files)), FakeSource(files)
    with running_agent(tmp_path, **QUICK) as agent:
        pod = PlayedPod(agent.url, stands_still_after=size // 2)
        fetch = pod.begin(ask)
        with pod.at_work(fetch, source):
            wait_until(lambda: (pod.standing(fetch).progress["bytes"] or 0) >= size // 3)
            there = pod.standing(fetch).progress["bytes"] or 0
    with running_agent(tmp_path, **QUICK) as agent:
        ended = PlayedPod(agent.url).fetched(ask, source)
    assert ended.state == "done"
    assert (ended.progress["receivedBytes"] or 0) <= size - there + 4 * BUFFER_BYTES


def test_more_fetches_than_there_may_be_are_put_off(tmp_path: Path) -> None:
    with running_agent(tmp_path, most_fetches=1) as agent:
        pod = PlayedPod(agent.url)
        pod.begin(ask_for(manifest(model(1))))
        refused = pod.ask(ask_for(manifest(model(2))))
    assert refused.status == 503
    assert float(refused.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"tree": "0" * 32}, id="another-tree"),
        pytest.param({"sources": ()}, id="no-source"),
        pytest.param({"holder": "../x"}, id="holder"),
        pytest.param({"holder": "b.llama"}, id="holder-of-another-namespace"),
        pytest.param({"version": "v" * 257}, id="long-version"),
        pytest.param({"version": "v2"}, id="another-version"),
    ],
)
def test_what_makes_no_sense_is_refused(agent: RunningAgent, change: dict[str, Any]) -> None:
    ask = replace(ask_for(manifest(model())), **change)
    answer = PlayedPod(agent.url).ask(ask)
    assert answer.status == 400
    assert answer.headers[protocol.FAILURE_HEADER] == "BadRequest"


def test_one_namespace_cannot_have_all_fetches(tmp_path: Path) -> None:
    with running_agent(tmp_path, most_fetches=8) as agent:
        own, other = PlayedPod(agent.url, "token-a"), PlayedPod(agent.url, "token-b")
        asks = [ask_for(manifest(model(each))) for each in range(3)]
        assert [own.ask(asks[each]).status for each in (0, 1, 2, 0, 1)] == [201, 201, 503, 201, 201]
        assert other.ask(asks[2]).status == 201


def test_many_large_manifests_of_one_namespace_are_put_off(tmp_path: Path) -> None:
    with running_agent(tmp_path, most_files=10) as agent:
        own, other = PlayedPod(agent.url, "token-a"), PlayedPod(agent.url, "token-b")
        asks = [ask_for(manifest(model(each)), version=f"v{each}") for each in range(2)]
        assert [own.ask(each).status for each in asks] == [201, 503]
        assert other.ask(asks[1]).status == 201


def test_a_fetch_that_no_thread_could_be_had_for_takes_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        if thread.name.startswith("fetch "):
            raise RuntimeError("can't start new thread")
        start(thread)

    start = threading.Thread.start
    with running_agent(tmp_path, most_fetches=4) as agent:
        pod = PlayedPod(agent.url)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refused)
            assert [pod.ask(ask_for(manifest(model(each)))).status for each in range(5)] == [503] * 5
        assert pod.ask(ask_for(manifest(model()))).status == 201


def test_only_the_last_fetches_that_ended_are_remembered(agent: RunningAgent) -> None:
    pod, fetches = PlayedPod(agent.url), []
    for _ in range(70):
        fetches.append(pod.begin(ask_for(manifest(model()))))
        pod.request("DELETE", protocol.FETCH.format(fetch=fetches[-1]))
        pod.ended(fetches[-1])
    there = [pod.request("GET", protocol.FETCH.format(fetch=each)).status for each in fetches]
    assert there[0] == 404
    assert there[-60:] == [200] * 60


def test_what_would_take_many_times_its_length_in_memory_is_refused(agent: RunningAgent) -> None:
    body = b'{"sources":[' + b"[]," * 1_000_000 + b"[]]}"
    answer = PlayedPod(agent.url).request("POST", protocol.FETCHES, body=body)
    assert (answer.status, answer.headers[protocol.FAILURE_HEADER]) == (400, "BadRequest")


class Slow(FakeSource):
    """Much longer than an agent waits for a pod that it does not hear of."""

    def read(self, path: str, limit: int) -> bytes:
        time.sleep(6)
        return super().read(path, limit)


@pytest.mark.slow
def test_a_source_that_takes_long_before_its_first_byte_is_waited_for(tmp_path: Path) -> None:
    files = model()
    beside = files | {FILE_NAME: manifest(files).text().encode()}
    with running_agent(tmp_path, silent=2.0, slow=120.0, job=0.3) as agent:
        ended = PlayedPod(agent.url).fetched(ask_for(None), Slow(beside))
    assert ended.state == "done", ended


def test_a_job_that_did_not_reach_its_pod_is_offered_again(tmp_path: Path) -> None:
    files = model()
    with running_agent(tmp_path, slow=1.0, job=1.0) as agent:
        pod = PlayedPod(agent.url)
        fetch = pod.begin(ask_for(manifest(files)))
        assert asked_for_a_job(pod, fetch) == 200
        with pod.at_work(fetch, FakeSource(files)):
            assert pod.ended(fetch).state == "done"


@pytest.mark.parametrize("takes_job", [pytest.param(True, id="amid-a-job"), pytest.param(False, id="before-a-job")])
def test_a_pod_that_went_away_is_no_verdict_about_its_source(tmp_path: Path, takes_job: bool) -> None:
    with running_agent(tmp_path, silent=1.0, away=1.0, job=1.0) as agent:
        pod, ask = PlayedPod(agent.url), ask_for(manifest(model()))
        fetch = pod.begin(ask)
        if takes_job:
            # 410: on a machine that stands still it has gone away already.
            assert asked_for_a_job(pod, fetch) in {200, 410}
        wait_until(lambda: protocol.read_standing(progress(agent, ask.tree)).state == "failed")
        failure = pod.standing(fetch).failure
    assert failure is not None
    assert failure.reason == protocol.ABANDONED


def progress(agent: RunningAgent, tree: str) -> bytes:
    """Asked without a token, so that no pod is heard of by it."""
    return urllib3.request("GET", agent.url + protocol.PROGRESS.format(namespace="a", tree=tree)).data


def test_results_that_nobody_waits_for_are_gone(agent: RunningAgent) -> None:
    pod = PlayedPod(agent.url)
    fetch = pod.begin(ask_for(manifest(model())))
    assert pod.put(fetch, 999, b"x") == 410
    assert pod.put("0" * 32, 1, b"x") == 404


def test_how_far_a_tree_is_anybody_may_ask(agent: RunningAgent) -> None:
    files = model()
    ask = ask_for(manifest(files))
    where = agent.url + protocol.PROGRESS.format(namespace="a", tree=ask.tree)
    pod = PlayedPod(agent.url)
    assert pod.http.request("GET", where).status == 404
    fetch = pod.begin(ask)
    assert protocol.read_standing(pod.http.request("GET", where).data).state == "running"
    with pod.at_work(fetch, FakeSource(files)):
        pod.ended(fetch)
    done = protocol.read_standing(pod.http.request("GET", where).data)
    assert (done.state, done.progress["bytes"]) == ("done", sum(map(len, files.values())))
    elsewhere = agent.url + protocol.PROGRESS.format(namespace="b", tree=ask.tree)
    assert pod.http.request("GET", elsewhere).status == 404
