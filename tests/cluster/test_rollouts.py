"""Versions on a node, under traffic and with a shared store: no answer of another model, no failure, and flushes when they are due.

The order of things is read from what the API server wrote; entries are looked up in Redis itself.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.answers import Door, door
from tests.cluster.clusters import ForeignCluster
from tests.cluster.history import History, flushed_versions, history, now
from tests.cluster.installing import SYSTEM, Installed, install, loaded
from tests.cluster.node import Node
from tests.cluster.shared_store import SPEC, SharedStore, shared_store
from tests.cluster.story import Question, Served, cache, condition, deployment, questions, ready, service, traffic, until

pytestmark = [pytest.mark.services, pytest.mark.slow]
PATIENCE_SECONDS = 240.0
WAIT_SECONDS = 10
KNOWN = tuple(f"How do I {subject}?" for subject in ("water a cactus", "tune a piano", "fold a map", "sharpen a knife"))


@pytest.fixture(scope="module")
def installed(node: Node | ForeignCluster, helm: Path) -> Installed:
    return install(node, helm, loaded(node), [f"operator.extraArgs[0]=--template-wait={WAIT_SECONDS}s"])


@pytest.fixture
def told(installed: Installed, node_namespace: str, tmp_path: Path) -> Iterator[History]:
    with history(installed.kubeconfig, node_namespace, tmp_path) as running:
        yield running


@pytest.fixture
def store(installed: Installed, node: Node | ForeignCluster, node_namespace: str) -> Iterator[SharedStore]:
    made = shared_store(installed, node.load, node_namespace)
    yield made
    made.client.close()


def pinned(version: str, *arguments: str, replicas: int = 2) -> Served:
    """Its template names the version, as the samples do."""
    return Served(version, replicas, arguments, {"inferencecache.io/version": version})


def stable(installed: Installed, namespace: str, version: str) -> bool:
    status = installed.status(namespace)
    return status.get("activeVersion") == version and condition(status, "Ready").get("status") == "True"


def serving_pods(installed: Installed, namespace: str, version: str) -> list[str]:
    pods = installed.pods(namespace)
    fine = [each for each in pods if "deletionTimestamp" not in each["metadata"] and ready(each)]
    return [each["metadata"]["name"] for each in fine if each["metadata"]["annotations"].get("inferencecache.io/version") == version]


class Traffic:
    """Goes on through the Service, in phases."""

    def __init__(self, installed: Installed, namespace: str) -> None:
        self._installed, self._namespace = installed, namespace
        arguments = ("--fresh", "0.3", "--visits-at-once", "6", "--pause", "0.06", "--questions-a-visit", "8")
        installed.apply(traffic(installed.image, *arguments), namespace=namespace)
        self._begun: list[tuple[str, float]] = []

    def phase(self, name: str) -> None:
        self._begun.append((name, now()))

    def asked(self) -> list[Question]:
        return questions(self._installed, self._namespace)

    def has(self, count: int) -> bool:
        return len(self.asked()) >= count

    def phases(self) -> dict[str, list[Question]]:
        starts = [*self._begun, ("", float("inf"))]
        asked = self.asked()
        return {name: [each for each in asked if start <= each.at < end] for (name, start), (_, end) in itertools.pairwise(starts)}


def hit_share(asked: list[Question]) -> float:
    return sum(each.hit for each in asked) / len(asked)


def assert_nobody_was_harmed(asked: list[Question]) -> None:
    assert [each.failed for each in asked if each.failed] == []
    assert [each for each in asked if each.of_another_model] == []


def test_a_bump_a_rollback_amid_it_and_the_bump_again(installed: Installed, node_namespace: str, store: SharedStore, told: History) -> None:
    namespace, v1, v2 = node_namespace, pinned("v1"), pinned("v2")

    def roll(served: Served, retain: str = "0s", settle: int = 0) -> None:
        """`settle`: seconds that a new pod is looked at before the next is replaced."""
        resource, body = cache(served.version, store=SPEC, rollout={"retain": retain}), deployment(installed.image, served)
        body["spec"]["minReadySeconds"] = settle
        installed.apply(resource, body, namespace=namespace)

    roll(v1)
    installed.apply(service(), namespace=namespace)
    until(
        PATIENCE_SECONDS, "v1 is served", lambda: stable(installed, namespace, "v1") and len(serving_pods(installed, namespace, "v1")) == 2
    )
    one = door(installed, namespace, serving_pods(installed, namespace, "v1")[0])
    for question in KNOWN:
        until(60, "v1 knows it", lambda question=question: one.ask(question).stored)
    load = Traffic(installed, namespace)
    load.phase("v1")
    until(PATIENCE_SECONDS, "v1 is warm", lambda: load.has(400))

    load.phase("v2, not to its end")
    roll(v2, settle=15)
    until(PATIENCE_SECONDS, "v2 answers too", lambda: sum(each.by == v2.root for each in load.asked()) > 20)
    until(PATIENCE_SECONDS, "one pod of v1 is left", lambda: len(serving_pods(installed, namespace, "v1")) == 1)

    load.phase("v1 again")
    before = store.entries("v1")
    survivors = set(serving_pods(installed, namespace, "v1"))
    assert told.end_of("v1") is None
    roll(v1)
    fresh = until(PATIENCE_SECONDS, "a new pod of v1", lambda: sorted(set(serving_pods(installed, namespace, "v1")) - survivors))
    warm = [door(installed, namespace, fresh[0]).kept(question) for question in KNOWN]
    assert all(each.hit and each.by == v1.root for each in warm), [each.how for each in warm]
    until(PATIENCE_SECONDS, "v2 is flushed", lambda: stable(installed, namespace, "v1") and told.flushed("v2"))
    assert_flushed_after_its_end(told, "v2")
    assert store.entries("v2") == frozenset()
    assert before <= store.entries("v1")

    load.phase("v2")
    # Kept until what there is of it has been counted.
    roll(v2, retain="1h")
    kept: list[frozenset[bytes]] = []

    def seen(what: bool) -> bool:
        kept.append(store.entries("v2"))
        return what

    until(PATIENCE_SECONDS, "v1 has ended", lambda: seen(stable(installed, namespace, "v2") and told.end_of("v1") is not None))
    count = len(store.entries("v1"))
    roll(v2)
    until(PATIENCE_SECONDS, "v1 is flushed", lambda: seen(stable(installed, namespace, "v2") and told.flushed("v1") is not None))
    until(PATIENCE_SECONDS, "3,000 questions", lambda: load.has(3000))
    assert_flushed_after_its_end(told, "v1")
    assert store.entries("v1") == frozenset()
    assert flushed_versions(installed.status(namespace))["v1"] == count > 0
    assert all(earlier <= later for earlier, later in itertools.pairwise(kept))

    phases = load.phases()
    for name, asked in phases.items():
        sys.stdout.write(f"{name}: {len(asked)} questions in {asked[-1].at - asked[0].at:.0f} s, {hit_share(asked):.0%} hits\n")
    everything = load.asked()
    assert_nobody_was_harmed(everything)
    assert all(hit_share(asked) >= 0.5 for asked in phases.values())
    assert 0.4 < sum(each.stream for each in everything) / len(everything) < 0.6


def assert_flushed_after_its_end(told: History, version: str) -> None:
    def moments() -> list[int]:
        found = (told.end_of(version), told.ordered(version), told.flushed(version))
        return [number for number in found if number is not None]

    # What is written of pods and of caches comes here in two streams, one behind the other.
    end, ordered, flushed = until(60, "all is told", lambda: found if len(found := moments()) == 3 else None)
    assert end < ordered < flushed


def replaced_weights(installed: Installed, weights: str, name: str = "vllm", replicas: int = 1) -> dict[str, Any]:
    """Its template names no version, and the model lies where the one before lay."""
    made = deployment(installed.image, Served("any", replicas, ["--signature", weights]), name)
    made["spec"]["selector"]["matchLabels"]["track"] = made["spec"]["template"]["metadata"]["labels"]["track"] = name
    return made


def test_a_pod_of_the_old_template_shares_nothing_with_the_new_model_and_a_late_rollback_is_warm(
    installed: Installed, node_namespace: str, store: SharedStore, told: History
) -> None:
    namespace = node_namespace

    def roll(version: str, weights: str, retain: str = "10m") -> None:
        resource = cache(version, store=SPEC, rollout={"retain": retain})
        installed.apply(resource, replaced_weights(installed, weights), namespace=namespace)

    def the_pod(version: str, track: str = "vllm") -> dict[str, Any]:
        pods = installed.pods(namespace, f"track={track}")
        fine = [each for each in pods if ready(each) and "deletionTimestamp" not in each["metadata"]]
        return next((each for each in fine if each["metadata"]["annotations"]["inferencecache.io/version"] == version), {})

    def opened(pod: dict[str, Any]) -> Door:
        return door(installed, namespace, pod["metadata"]["name"])

    roll("v1", "old-weights")
    installed.apply(replaced_weights(installed, "old-weights", "vllm-old", replicas=0), namespace=namespace)
    one = opened(until(PATIENCE_SECONDS, "v1 is served", lambda: stable(installed, namespace, "v1") and the_pod("v1")))
    for question in KNOWN:
        until(60, "v1 knows it", lambda question=question: one.ask(question).stored)
    of_v1 = store.entries("v1")

    roll("v2", "new-weights")
    new_pod = until(PATIENCE_SECONDS, "v2 is served", lambda: told.end_of("v1") and the_pod("v2"))
    two = opened(new_pod)
    fresh = [two.kept(question) for question in KNOWN]
    assert [(each.hit, each.by) for each in fresh] == [(False, "new-weights")] * len(KNOWN)
    assert [two.kept(question).hit for question in KNOWN] == [True] * len(KNOWN)

    installed.kubectl("scale", "-n", namespace, "deployment/vllm-old", "--replicas=1")
    old_pod = until(PATIENCE_SECONDS, "the old template's pod", lambda: the_pod("v2", "vllm-old"))
    assert (
        old_pod["metadata"]["annotations"]["inferencecache.io/revision"] != new_pod["metadata"]["annotations"]["inferencecache.io/revision"]
    )
    of_v2 = store.entries("v2")
    late = opened(old_pod)
    for each, weights in ((late, "old-weights"), (two, "new-weights"), (late, "old-weights")):
        answers = [each.looked_up(question) for question in (*KNOWN, *(f"Please, {known[0].lower()}{known[1:]}" for known in KNOWN))]
        assert {answer.by for answer in answers} == {weights}
    assert of_v2 < store.entries("v2")
    assert len(store.entries("v2") - of_v2) >= len(KNOWN)

    until(60, "v1 is retained", lambda: condition(installed.status(namespace), "CacheFlushed").get("reason") == "Retained")
    assert (installed.status(namespace).get("flushedVersions"), store.entries("v1")) == ([], of_v1)
    installed.kubectl("delete", "-n", namespace, "deployment/vllm-old")
    roll("v1", "old-weights")
    back = opened(until(PATIENCE_SECONDS, "v1 is back", lambda: told.end_of("v2") and stable(installed, namespace, "v1") and the_pod("v1")))
    warm = [back.kept(question) for question in KNOWN]
    assert all(each.hit and each.by == "old-weights" for each in warm), [each.how for each in warm]

    count = len(store.entries("v2"))
    roll("v1", "old-weights", retain="0s")
    until(PATIENCE_SECONDS, "v2 is flushed", lambda: "v2" in flushed_versions(installed.status(namespace)))
    assert flushed_versions(installed.status(namespace))["v2"] == count
    assert (store.entries("v1"), store.entries("v2")) == (of_v1, frozenset())


def test_a_bump_of_the_resource_alone_reaches_the_pods_as_its_trigger_says(
    installed: Installed, node_namespace: str, store: SharedStore, told: History
) -> None:
    namespace, served = node_namespace, Served("any", arguments=["--dated"])

    def bump(version: str, **rollout: str) -> float:
        at = now()
        installed.apply(cache(version, store=SPEC, rollout=rollout), namespace=namespace)
        return at

    def disrupted(available: int) -> dict[str, Any]:
        spec = {"minAvailable": available, "selector": {"matchLabels": {"app": "vllm"}}}
        return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "vllm"}, "spec": spec}

    def rollout_annotation() -> str | None:
        template = installed.get("deployment", "vllm", namespace=namespace)["spec"]["template"]
        return (template["metadata"].get("annotations") or {}).get("inferencecache.io/rollout")

    def reason() -> str:
        return str(condition(installed.status(namespace), "Reconciling").get("reason"))

    bump("v1")
    installed.apply(deployment(installed.image, served), service(), disrupted(2), namespace=namespace)
    until(
        PATIENCE_SECONDS, "v1 is served", lambda: stable(installed, namespace, "v1") and len(serving_pods(installed, namespace, "v1")) == 2
    )
    load = Traffic(installed, namespace)
    load.phase("v1")
    until(PATIENCE_SECONDS, "v1 is warm", lambda: any(each.hit for each in load.asked()))

    # Manual: said, and nothing done, however long it lasts.
    manual = bump("v2", trigger="Manual")
    until(60, "it says who is to roll", lambda: reason() == "Manual")
    until(60, "the time of a user has passed", lambda: now() > manual + 2 * WAIT_SECONDS)
    assert (reason(), rollout_annotation(), len(serving_pods(installed, namespace, "v1"))) == ("Manual", None, 2)

    # Auto, and Immediate: nothing of before is served once all have said so, and the pods are replaced in time.
    load.phase("v3, flushed at once")
    immediate = bump("v3", trigger="Auto", flush="Immediate")
    until(60, "v1 is flushed while its pods serve", lambda: "v1" in flushed_versions(installed.status(namespace)))
    acknowledged = now()
    assert told.end_of("v1") is None
    # It may be over by now.
    until(60, "the owner of the template is waited for", lambda: "WaitingForTemplate" in reasons(told, "v3"))
    first = until(PATIENCE_SECONDS, "the template is rolled", rollout_annotation)
    rolled = now()
    until(PATIENCE_SECONDS, "v3 is served", lambda: stable(installed, namespace, "v3"))
    served_at = now()

    # Who else owns the annotation is left alone: the pods go one by one, by eviction.
    template = {"metadata": {"annotations": {"inferencecache.io/rollout": first}}}
    owned = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "vllm"}, "spec": {"template": template}}
    installed.kubectl("apply", "-n", namespace, "--server-side", "--field-manager=gitops", "-f", "-", stdin=json.dumps(owned))
    load.phase("v4, by eviction")
    evicting = bump("v4")
    until(PATIENCE_SECONDS, "the budget is asked", lambda: "stays for now" in operator_logs(installed))
    assert len(serving_pods(installed, namespace, "v3")) == 2
    installed.apply(disrupted(1), namespace=namespace)
    until(PATIENCE_SECONDS, "v4 is served", lambda: stable(installed, namespace, "v4"))
    done = now()
    assert rollout_annotation() == first
    assert_one_after_the_other(told, "v3", "v4")

    until(60, "hits of v4", lambda: sum(each.hit for each in load.asked() if each.at > done) > 20)
    everything = load.asked()
    sys.stdout.write(
        f"acknowledged {acknowledged - immediate:.1f} s, rolled {rolled - immediate:.1f} s and served {served_at - immediate:.1f} s "
        f"after the bump; by eviction {done - evicting:.1f} s\n"
    )
    assert rolled - immediate >= WAIT_SECONDS
    assert min(told.serving_counts()[told.serving_counts().index(2) :]) >= 1
    assert_nobody_was_harmed(everything)
    for since, bumped in ((acknowledged, immediate), (served_at, immediate), (done, evicting)):
        assert [each for each in everything if each.at > since and each.made is not None and each.made < bumped] == []


def reasons(told: History, version: str) -> set[str]:
    """All that was ever said to be under way while the resource named `version`."""
    bodies = [each.body for each in told.caches() if each.body["spec"]["model"]["version"] == version]
    return {str(condition(body.get("status") or {}, "Reconciling").get("reason")) for body in bodies}


def assert_one_after_the_other(told: History, old: str, new: str) -> None:
    """An old pod ends only while every other place has a pod that is Ready: the last one when all successors are."""
    until(60, "both ends are told", lambda: len({each.uid for each in told.pods() if each.version == old and each.ending}) == 2)
    serving, ended = dict[str, str](), set[str]()
    for change in told.pods():
        if change.version == old and change.ending and change.uid not in ended:
            ended.add(change.uid)
            assert list(serving.values()).count(new) >= len(ended) - 1
        serving.pop(change.uid, None)
        if change.serving:
            serving[change.uid] = change.version or ""
    assert len(ended) == 2


def operator_logs(installed: Installed) -> str:
    return installed.kubectl("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--since=60s", "--tail=-1")
