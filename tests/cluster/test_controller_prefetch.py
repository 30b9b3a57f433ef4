"""Files come to the nodes before pods of a new version do, on a real API server with a played kubelet."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.controller_running import SECONDS, Cache, Sidecars, answering, controlling, deploy, deployment
from tests.cluster.played_kubelet import PlayedKubelet, Pod, pinned_node, played_kubelet
from tests.cluster.servers import until
from tests.cluster.webhook_processes import Installed, installed
from tests.operator.prefetch_scenes import cache as wanted
from tests.operator.prefetch_scenes import content

from inference_cache_contract.pod import VERSION_ANNOTATION
from inference_cache_operator.prefetch.pods import PREFETCH_LABEL, Place, prefetch_pod

pytestmark = [pytest.mark.services, pytest.mark.slow]
FILES = [{"source": "s3://models/faq/", "mountPath": "/models", "credentialsSecretRef": {"name": "s3"}}]
CORRUPT = json.dumps({"reason": "Corrupt", "file": "model.safetensors", "message": "model.safetensors: its SHA-256 is another"})
MERGE = "application/merge-patch+json"


@dataclass(slots=True)
class Nodes:
    """Every vLLM gets one of its own; pods that fetch ahead end as it is said here, by node."""

    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Those of other nodes run on."""
    given: dict[str, str] = field(default_factory=dict)

    def of(self, pod: Pod) -> str:
        return self.given.setdefault(pod["metadata"]["name"], f"n{len(self.given) + 1}")

    def ending(self, pod: Pod) -> dict[str, Any] | None:
        return self.ends.get(pinned_node(pod) or "")

    def succeed(self) -> None:
        self.ends = {node: {"exitCode": 0} for node in self.given.values()}


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture
def install(control_plane: ControlPlane, namespace: str, tmp_path: Path, nodes: Nodes) -> Iterator[Installed]:
    agent = "http://agent.operator.svc:9182"
    with (
        installed(control_plane, namespace, tmp_path, replicas=1, artifacts_agent=agent) as ready,
        played_kubelet(control_plane.api, namespace) as kubelet,
    ):
        play(kubelet, nodes)
        for number in range(1, 10):
            make_agent(ready, f"n{number}")
        yield ready


def make_agent(install: Installed, node: str) -> None:
    """Nobody plays kubelet for it: it is not Ready, and is waited for."""
    labels = {"app.kubernetes.io/name": "inference-cache", "app.kubernetes.io/component": "agent"}
    spec = {"nodeName": node, "containers": [{"name": "agent", "image": "agent"}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"agent-{node}", "labels": labels}, "spec": spec}
    install.create_pod(body, namespace=install.own_namespace)


def remove_agent(install: Installed, node: str) -> None:
    path = f"/api/v1/namespaces/{install.own_namespace}/pods/agent-{node}"
    install.plane.api.request("DELETE", path, {"gracePeriodSeconds": 0})


def play(kubelet: PlayedKubelet, nodes: Nodes) -> None:
    kubelet.node, kubelet.ends = nodes.of, nodes.ending


@pytest.fixture
def cache(install: Installed) -> Iterator[Cache]:
    """Served by two pods on a node each."""
    with answering(Sidecars(install.plane.api)) as sidecars, controlling(install, sidecars):
        found = Cache(install.plane.api, install.namespace)
        enforce(found, "baseline")
        install.create_cache(model={"name": "m", "version": "v1", "artifacts": FILES})
        deploy(found.api, found.namespace, deployment())
        found.wait_serving()
        until(lambda: found.status()["artifacts"].get("delivery") == "Agent", "it to be known how files come", SECONDS)
        yield found


def enforce(cache: Cache, level: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": level}
    cache.api.request("PATCH", f"/api/v1/namespaces/{cache.namespace}", {"metadata": {"labels": labels}}, MERGE)
    until(lambda: refuses_folders(cache), f"{level} to be in force", SECONDS)


def refuses_folders(cache: Cache) -> bool:
    """Of the node, in pods: both levels do."""
    container = {"name": "asks", "image": "asks"}
    spec = {"containers": [container], "volumes": [{"name": "folder", "hostPath": {"path": "/"}}]}
    try:
        cache.api.request("POST", f"/api/v1/namespaces/{cache.namespace}/pods?dryRun=All", {"metadata": {"name": "asks"}, "spec": spec})
    except HTTPError as error:
        with error:
            return error.code == 403
    return False


def prefetching(cache: Cache) -> set[str]:
    """Nodes for which there is a pod that fetches ahead."""
    listed = cache.api.request("GET", f"/api/v1/namespaces/{cache.namespace}/pods?labelSelector={PREFETCH_LABEL.replace('/', '%2F')}")[
        "items"
    ]
    return {pinned_node(each) or "" for each in listed if "deletionTimestamp" not in each["metadata"]}


def versions(cache: Cache) -> set[str]:
    return set(cache.annotations(VERSION_ANNOTATION))


def fetched(cache: Cache) -> set[str]:
    """Versions whose files vLLM's pods get."""
    args = [arg for pod in cache.pods() for each in pod["spec"]["initContainers"] for arg in each["args"]]
    return {arg.partition("=")[2] for arg in args if arg.startswith("--version=")}


def notes(cache: Cache, reason: str) -> list[str]:
    events = cache.api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{cache.namespace}/events")["items"]
    return [each["note"] for each in events if each["reason"] == reason]


def message(cache: Cache, kind: str = "ArtifactsReady") -> str:
    return str(next(each["message"] for each in cache.status()["conditions"] if each["type"] == kind))


def test_no_pod_of_the_new_version_is_made_before_every_node_has_its_files(cache: Cache, nodes: Nodes) -> None:
    assert cache.status()["artifacts"]["delivery"] == "Agent"
    assert 'violates PodSecurity "baseline' in cache.status()["artifacts"]["message"]
    enforce(cache, "restricted")
    cache.bump("v2")
    until(lambda: len(prefetching(cache)) == 2, "a pod that fetches on each node", SECONDS)
    cache.wait("ArtifactsReady", "False", "Preloading")
    enforce(cache, "baseline")
    # What comes meanwhile is of the old version, and its node is waited for.
    path = f"/apis/apps/v1/namespaces/{cache.namespace}/deployments/vllm"
    cache.api.request("PATCH", path, {"spec": {"replicas": 3}}, MERGE)
    until(lambda: len(prefetching(cache)) == 3, "a pod that fetches on the third node", SECONDS)
    first, second, third = sorted(prefetching(cache))
    nodes.ends = {first: {"exitCode": 0}, second: {"exitCode": 0}}
    until(lambda: f"is on 2 of 3 nodes; node {third}: Fetching, pod " in message(cache), "two nodes", SECONDS)
    assert (versions(cache), fetched(cache), cache.status()["phase"]) == ({"v1"}, {"v1"}, "Preloading")
    assert f"the agent of its node, pod agent-{third}, is not Ready" in message(cache)
    until(lambda: [each["node"] for each in cache.status()["artifacts"]["progress"]] == [third, first, second], "progress", SECONDS)
    assert cache.status()["artifacts"]["nodes"] == {"wanted": 3, "ready": 2}
    nodes.succeed()
    until(lambda: versions(cache) == {"v2"}, "v2 everywhere", SECONDS)
    cache.wait("Ready", "True", "Ready")
    assert fetched(cache) == {"v2"}
    until(lambda: prefetching(cache) == set(), "them to be tidied away", SECONDS)
    until(lambda: set(cache.status()["artifacts"]) == {"delivery", "message"}, "progress to be gone", SECONDS)
    assert len(notes(cache, "PrefetchStarted")) == 1
    (done,) = notes(cache, "PrefetchDone")
    assert done.startswith("version 'v2' is on 3 nodes after ")


def test_a_corrupt_file_leaves_the_old_version_serving_until_it_is_corrected(cache: Cache, nodes: Nodes) -> None:
    before = {pod["metadata"]["uid"] for pod in cache.pods()}
    first, second = sorted(nodes.given.values())
    nodes.ends = {first: {"exitCode": 0}, second: {"exitCode": 1, "message": CORRUPT}}
    cache.bump("v2")
    cache.wait("ArtifactsReady", "False", "Corrupt")
    assert f"node {second}: model.safetensors: its SHA-256 is another" in message(cache)
    until(lambda: notes(cache, "PrefetchFailed") != [], "the event", SECONDS)
    assert {pod["metadata"]["uid"] for pod in cache.pods()} == before
    entry = cache.status()["artifacts"]["progress"][0]
    assert (entry["node"], entry["state"], entry["reason"]) == (second, "Failed", "Corrupt")
    # Nobody corrects it, and the version is set back.
    cache.bump("v1")
    until(lambda: prefetching(cache) == set(), "the others to go", SECONDS)
    cache.wait_serving()
    assert {pod["metadata"]["uid"] for pod in cache.pods()} == before
    # It fails again, is corrected, and goes on by itself.
    cache.bump("v2")
    cache.wait("ArtifactsReady", "False", "Corrupt")
    nodes.succeed()
    until(lambda: versions(cache) == {"v2"}, "v2 everywhere", SECONDS)
    until(lambda: len(notes(cache, "PrefetchFailed")) == 2, "the second event", SECONDS)


def test_a_version_that_replaces_one_under_way_is_fetched_instead_of_it(cache: Cache, nodes: Nodes) -> None:
    cache.bump("v2")
    until(lambda: len(prefetching(cache)) == 2, "v2 to be fetched", SECONDS)
    cache.bump("v3")
    until(lambda: any("'v3'" in note for note in notes(cache, "PrefetchStarted")), "v3 to be fetched", SECONDS)
    nodes.succeed()
    until(lambda: versions(cache) == {"v3"}, "v3 everywhere", SECONDS)
    cache.wait("Ready", "True", "Ready")
    assert cache.status()["activeVersion"] == "v3"


def test_pods_of_a_node_without_an_agent_fetch_for_themselves(cache: Cache, nodes: Nodes, install: Installed) -> None:
    first, second = sorted(nodes.given.values())
    remove_agent(install, second)
    cache.bump("v2")
    until(lambda: prefetching(cache) == {first}, "a pod that fetches on the node with an agent", SECONDS)
    assert versions(cache) == {"v1"}
    nodes.ends = {first: {"exitCode": 0}}
    until(lambda: versions(cache) == {"v2"}, "v2 everywhere", SECONDS)


def test_a_pod_that_fills_a_claim_may_come_to_any_of_several_nodes(install: Installed) -> None:
    resource = replace(wanted(claim="models"), namespace=install.namespace)
    place = Place("", {}, ("n1", "n2", "n3"))
    made = install.create_pod(prefetch_pod(resource, content(resource), place), dry_run=True)
    required = made["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert len(required["nodeSelectorTerms"]) == 3


def test_pods_that_fetch_go_with_their_resource(cache: Cache) -> None:
    cache.bump("v2")
    until(lambda: len(prefetching(cache)) == 2, "v2 to be fetched", SECONDS)
    cache.delete()
    until(lambda: prefetching(cache) == set(), "them to go", SECONDS)
