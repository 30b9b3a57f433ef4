"""The controller's small parts: queue, index, lease, claims, what is released, and the age of the watch."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.test_audit import Injection
from tests.operator.test_audit import pod as injected
from tests.operator.version_scenes import answer

from inference_cache_contract.configuration import Configuration, digest, read_configuration
from inference_cache_contract.pod import CACHE_ANNOTATION, CONFIGURATION_ANNOTATION, NUDGE_ANNOTATION
from inference_cache_operator import errors
from inference_cache_operator.audit.pods import read_pod
from inference_cache_operator.cluster.election import Record, may_claim
from inference_cache_operator.controller.collaborators import Collaborators
from inference_cache_operator.controller.configuring import AT_ONCE
from inference_cache_operator.controller.freshness import WatchAge
from inference_cache_operator.controller.index import Index
from inference_cache_operator.controller.nudging import Nudges
from inference_cache_operator.controller.observing import claim
from inference_cache_operator.controller.queue import WorkQueue
from inference_cache_operator.controller.reconciling import Reconciler
from inference_cache_operator.controller.releasing import bypassing, is_orphan
from inference_cache_operator.prefetch.outcome import Prefetched
from inference_cache_operator.resource import read_resource
from inference_cache_operator.versions.telling import Said


def body(name: str = "faq", generation: int = 1, created: str = "2026-01-01T00:00:00Z", **metadata: Any) -> dict[str, Any]:
    meta = {"namespace": "llm", "name": name, "uid": f"uid-{name}", "generation": generation, "creationTimestamp": created, **metadata}
    return {"metadata": meta, "spec": {"selector": {"matchLabels": {"app": "vllm"}}}}


def pod(app: str = "vllm", cache: str | None = None, configuration: str = "") -> Any:
    annotations = {} if cache is None else {CACHE_ANNOTATION: cache, CONFIGURATION_ANNOTATION: configuration}
    metadata = {"namespace": "llm", "name": "p", "uid": "p", "labels": {"app": app}, "annotations": annotations}
    return read_pod({"metadata": metadata, "spec": {}, "status": {}})


async def test_a_key_is_worked_on_by_one_worker_at_a_time() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.take() == "a"
    queue.add("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.05)
    queue.done("a")
    assert await asyncio.wait_for(queue.take(), 60) == "a"


async def test_the_earliest_wish_for_a_key_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", 3600)
    queue.add("b", 0.01)
    queue.add("a")
    assert [await asyncio.wait_for(queue.take(), 60), await asyncio.wait_for(queue.take(), 60)] == ["a", "b"]


@pytest.mark.parametrize("steps", range(6))
async def test_who_waits_for_a_key_can_be_cancelled_at_every_moment(steps: int) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("later", 3600)
    taking = asyncio.create_task(queue.take())
    for _ in range(5):
        await asyncio.sleep(0)
    queue.add("later too", 3600)
    for _ in range(steps):
        await asyncio.sleep(0)
    taking.cancel()
    await asyncio.wait([taking], timeout=60)
    assert taking.cancelled()


async def test_what_fails_is_tried_again_after_longer_and_longer_whiles() -> None:
    queue: WorkQueue[str] = WorkQueue()
    delays = [queue.failed("a") for _ in range(12)]
    assert all(0.125 <= delay <= 30 for delay in delays)
    assert delays[-1] > 10 > 1 > delays[0]


def test_our_own_status_writes_are_no_news() -> None:
    index = Index()
    assert index.watched(body(), deleted=False) == ("llm", "faq")
    assert index.watched({**body(), "status": {"phase": "Stable"}}, deleted=False) is None
    assert index.watched(body(generation=2), deleted=False) == ("llm", "faq")
    assert index.watched(body(generation=2), deleted=True) == ("llm", "faq")


def test_a_list_tells_what_the_watch_did_not_until_the_watch_does() -> None:
    index = Index()
    assert index.listed([body()]) == ([("llm", "faq")], [])
    assert index.listed([body()]) == ([("llm", "faq")], [])
    index.watched(body(), deleted=False)
    assert index.listed([body()]) == ([], [])
    assert index.listed([body(generation=2)]) == ([("llm", "faq")], [])
    assert index.listed([]) == ([], [("llm", "faq")])


def test_a_watch_that_stays_behind_is_a_problem() -> None:
    now = [0.0]
    age = WatchAge(60, lambda: now[0])
    age.took(1)
    now[0] = 61
    assert age.problems() == ["the watch has missed changes for 61 s"]
    age.took(0)
    assert age.problems() == []


@pytest.mark.parametrize(
    ("holder", "silent", "claimable"),
    [
        pytest.param("", 0, True, id="nobody-holds-it"),
        pytest.param("me", 0, True, id="mine"),
        pytest.param("other", 9.9, False, id="held"),
        pytest.param("other", 10, True, id="silent-for-the-whole-lease"),
    ],
)
def test_a_lease_may_be_claimed(holder: str, silent: float, claimable: bool) -> None:
    assert may_claim(Record(holder, "t", 0, 10), "me", silent) is claimable


def test_the_older_resource_has_the_pods_and_both_know() -> None:
    older, younger = read_resource(body("older")), read_resource(body("younger", created="2026-02-01T00:00:00Z"))
    won, lost = claim(older, [pod()], [older, younger]), claim(younger, [pod()], [older, younger])
    assert (len(won.own), won.lost, won.rivals) == (1, 0, ["younger"])
    assert (len(lost.own), lost.lost, lost.rivals) == (0, 1, ["older"])


@pytest.mark.parametrize(
    ("one", "orphan"),
    [
        pytest.param(pod(cache="faq"), False, id="has-its-resource"),
        pytest.param(pod(), False, id="was-never-injected"),
        pytest.param(pod(cache="gone"), True, id="resource-is-gone"),
        pytest.param(pod("other", cache="faq"), True, id="is-not-selected-any-more"),
    ],
)
def test_a_pod_is_an_orphan(one: Any, orphan: bool) -> None:
    assert is_orphan(one, [read_resource(body())]) is orphan


def test_a_released_pod_keeps_its_spec_but_for_the_mode() -> None:
    text = Configuration({"model": {"version": "v1"}, "mode": "Enabled"}).text()
    assert read_configuration(bypassing(text)).spec == {"model": {"version": "v1"}, "mode": "Bypass"}
    assert read_configuration(bypassing("nonsense")).spec == {"mode": "Bypass"}
    assert bypassing(bypassing(text)) == bypassing(text)


class AnnotatedCluster:
    def __init__(self) -> None:
        self.nudges: list[str] = []

    async def merge(self, _path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.nudges.append(body["metadata"]["annotations"][NUDGE_ANNOTATION])
        return body


@pytest.mark.parametrize(
    ("knows", "rounds", "nudges"),
    [
        pytest.param("new", [0, 1, 3, 7], 0, id="has-taken-it-up"),
        pytest.param(None, [0, 1, 3, 7], 0, id="does-not-answer"),
        pytest.param("old", [0, 0.9], 0, id="may-still-be-on-its-way"),
        pytest.param("old", [0, 1, 1.5, 2.9, 3], 2, id="less-and-less-often"),
        pytest.param("old", [10.0 * each for each in range(100)], 6, id="not-for-ever"),
    ],
)
async def test_kubelet_is_made_to_look_again_at_a_pod_that_does_not_take_its_configuration_up(
    knows: str | None, rounds: list[float], nudges: int
) -> None:
    cluster, nudging, pods = AnnotatedCluster(), Nudges(), [pod(cache="faq", configuration="new")]
    statuses = {} if knows is None else {"p": replace(answer({}), configuration=digest(knows))}
    helps = [await nudging.nudge(cluster, ("llm", "faq"), pods, statuses, now) for now in rounds]  # type: ignore[arg-type]
    assert len(cluster.nudges) == len(set(cluster.nudges)) == nudges
    assert helps[-1] is (knows == "old" and nudges < 6)


async def test_a_newer_configuration_is_given_its_time() -> None:
    cluster, nudging = AnnotatedCluster(), Nudges()
    for now, text in ((0.0, "b"), (1.0, "c"), (1.9, "c"), (2.0, "c")):
        assert cluster.nudges == []
        await nudging.nudge(
            cluster, ("llm", "faq"), [pod(cache="faq", configuration=text)], {"p": replace(answer({}), configuration="")}, now
        )  # type: ignore[arg-type]
    assert cluster.nudges == [f"{digest('c')}.1"]


class SlowCluster:
    """Answers when as many are asked for as may be asked for at once."""

    def __init__(self) -> None:
        self.asked = self.most = self.done = 0
        self.enough = asyncio.Event()

    async def merge(self, _path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        self.most = max(self.most, self.asked)
        if self.asked == AT_ONCE:
            self.enough.set()
        await asyncio.wait_for(self.enough.wait(), 30)
        self.asked -= 1
        self.done += 1
        return body


async def test_kubelets_are_made_to_look_again_many_at_once_but_not_all() -> None:
    cluster, nudging = SlowCluster(), Nudges()
    pods = [replace(pod(cache="faq", configuration="new"), uid=f"p{number}") for number in range(3 * AT_ONCE)]
    statuses = {each.uid: replace(answer({}), configuration=digest("old")) for each in pods}
    for now in (0.0, 1.0):
        await nudging.nudge(cluster, ("llm", "faq"), pods, statuses, now)  # type: ignore[arg-type]
    assert (cluster.most, cluster.done) == (AT_ONCE, 3 * AT_ONCE)


class NudgelessCluster:
    """One resource with a pod; an API server that fails when kubelet is to be made to look again."""

    def __init__(self) -> None:
        self.body = {**body(), "spec": {**body()["spec"], "model": {"version": "v1"}}}
        self.events: list[str] = []
        self.nudged = 0

    async def get(self, _path: str) -> dict[str, Any]:
        return self.body

    async def list(self, _path: str, _labels: str = "", **_: Any) -> list[dict[str, Any]]:
        one = injected()
        return [{**one.body, "metadata": {**one.body["metadata"], "labels": {"app": "vllm"}}}]

    async def merge(self, _path: str, body_: dict[str, Any]) -> dict[str, Any]:
        if NUDGE_ANNOTATION in body_["metadata"]["annotations"]:
            self.nudged += 1
            raise errors.ClusterUnreachable("PATCH")
        return body_

    async def apply(self, _path: str, body_: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        self.body = {**self.body, "status": body_["status"]}
        return self.body

    async def create(self, _path: str, body_: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.events.append(body_["reason"])
        return body_


class Fetched:
    async def look(self, *_: Any) -> Prefetched:
        return Prefetched(said=(Said("PrefetchDone", "m"),))


class Behind:
    async def statuses(self, pods: Any) -> dict[str, Any]:
        return {each.uid: replace(answer({}), configuration="old") for each in pods}


async def test_what_a_round_has_to_tell_is_told_though_kubelet_cannot_be_made_to_look_again() -> None:
    cluster, now = NudgelessCluster(), [1_800_000_000.0]
    made_of: Any = {"cluster": cluster, "sidecars": Behind(), "injector": Injection(), "prefetcher": Fetched()}
    reconciler = Reconciler(Collaborators(**made_of, index=Index(), now=lambda: now[0]))
    await reconciler.reconcile(("llm", "faq"))
    cluster.events.clear()
    now[0] += 1
    with pytest.raises(errors.ClusterUnreachable):
        await reconciler.reconcile(("llm", "faq"))
    assert (cluster.nudged, "PrefetchDone" in cluster.events) == (1, True)
