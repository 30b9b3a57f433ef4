"""Artifacts on a node with the agent: fetched before any pod is replaced, once for all pods, and handed to each as its namespace allows."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.clusters import ForeignCluster
from tests.cluster.installing import RELEASE, Installed, install, loaded
from tests.cluster.model_files import (
    WEIGHTS,
    artifacts_ready,
    corrupt,
    digest_in,
    files,
    is_served,
    manifest,
    weights_digest,
    with_artifacts,
)
from tests.cluster.node import Node
from tests.cluster.rights import Asking, asking_since_now, granted, refused
from tests.cluster.s3 import NAME, S3, s3
from tests.cluster.story import APP, Served, deployment, ready, service, until
from tests.cluster.surroundings import a_namespace

from inference_cache_operator.injection.fetching import STORE_VOLUME

pytestmark = [pytest.mark.services, pytest.mark.slow]
PATIENCE_SECONDS = 240.0
BACK_OFF_SECONDS = 360.0
"""Kubelet waits up to five minutes before it starts a container again."""
WITH_AGENT = ("artifacts.enabled=true", "artifacts.agent.extraArgs={--high-water=1}", "artifacts.agent.reserve=0")
"""However full the machine's disk is, nothing is removed that nobody uses any more, and there is room."""
MODEL = Served("x")
"""Its template names no version, and finds every version in one place."""


@pytest.fixture(scope="module")
def asking(node: Node | ForeignCluster) -> Asking | None:
    """Since before the installation. None: the audit log of somebody else's cluster cannot be read."""
    return asking_since_now(node) if isinstance(node, Node) else None


@pytest.fixture(scope="module")
def installed(node: Node | ForeignCluster, helm: Path, asking: Asking | None) -> Installed:
    return install(node, helm, loaded(node), WITH_AGENT)


@pytest.fixture
def baseline(installed: Installed) -> Iterator[str]:
    with a_namespace(installed, "pod-security.kubernetes.io/enforce=baseline") as namespace:
        yield namespace


def model(installed: Installed, replicas: int) -> dict[str, Any]:
    return deployment(installed.image, Served(MODEL.version, replicas))


def delivery(installed: Installed, namespace: str) -> str:
    return str((installed.status(namespace).get("artifacts") or {}).get("delivery") or "")


def volume_kinds(pods: list[dict[str, Any]]) -> set[str]:
    volumes = [each for pod in pods for each in pod["spec"]["volumes"] if each["name"] == STORE_VOLUME]
    return {kind for each in volumes for kind in each if kind != "name"}


def weights_in(installed: Installed, namespace: str, pods: list[dict[str, Any]]) -> list[str]:
    return [digest_in(installed, namespace, pod, f"{MODEL.root}/{WEIGHTS}") for pod in pods]


def all_ready(installed: Installed, namespace: str, count: int) -> bool:
    return [ready(pod) for pod in installed.pods(namespace)] == [True] * count


def uids(pods: list[dict[str, Any]]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def without_source(installed: Installed, namespace: str) -> None:
    installed.kubectl("delete", "-n", namespace, "pod", NAME, "--wait=true")


def test_a_version_is_on_the_node_and_right_before_any_pod_is_replaced(
    node: Node | ForeignCluster, installed: Installed, asking: Asking | None, node_namespace: str, tmp_path: Path
) -> None:
    namespace = node_namespace
    source: S3 = s3(installed, node.load, namespace, tmp_path)
    source.put("v1", files("v1"), manifest("v1"))
    source.put("v2", corrupt("v2"), manifest("v2"))
    installed.apply(with_artifacts("v1", MODEL.root), service(), namespace=namespace)
    until(PATIENCE_SECONDS, "it is known how files come", lambda: delivery(installed, namespace) == "HostPath")
    installed.apply(model(installed, 2), namespace=namespace)
    until(PATIENCE_SECONDS, "v1 is served", lambda: is_served(installed, namespace, "v1", 2))
    first = installed.pods(namespace)
    assert volume_kinds(first) == {"hostPath"}
    assert weights_in(installed, namespace, first) == [weights_digest("v1")] * 2

    installed.apply(with_artifacts("v2", MODEL.root), namespace=namespace)
    until(PATIENCE_SECONDS, "it is said what is wrong", lambda: artifacts_ready(installed, namespace).get("reason") == "Corrupt")
    assert WEIGHTS in artifacts_ready(installed, namespace)["message"]
    installed.kubectl("scale", "-n", namespace, f"deployment/{APP}", "--replicas=3")
    until(PATIENCE_SECONDS, "a third pod is Ready", lambda: all_ready(installed, namespace, 3))
    assert uids(first) < uids(installed.pods(namespace))
    assert weights_in(installed, namespace, installed.pods(namespace)) == [weights_digest("v1")] * 3
    status: Mapping[str, Any] = installed.status(namespace)
    assert (status["activeVersion"], status["phase"]) == ("v1", "Preloading")

    source.put("v2", files("v2"), manifest("v2"))
    until(BACK_OFF_SECONDS, "v2 is served", lambda: is_served(installed, namespace, "v2", 3))
    assert weights_in(installed, namespace, installed.pods(namespace)) == [weights_digest("v2")] * 3
    until(PATIENCE_SECONDS, "all have their files", lambda: artifacts_ready(installed, namespace).get("reason") == "Ready")

    without_source(installed, namespace)
    installed.kubectl("scale", "-n", namespace, f"deployment/{APP}", "--replicas=5")
    until(PATIENCE_SECONDS, "five pods are Ready", lambda: all_ready(installed, namespace, 5))
    assert weights_in(installed, namespace, installed.pods(namespace)) == [weights_digest("v2")] * 5
    name = installed.pods(namespace)[0]["metadata"]["name"]
    installed.kubectl("exec", "-n", namespace, name, "-c", "server", "--", "touch", f"{MODEL.root}/{WEIGHTS}", check=False)
    assert weights_in(installed, namespace, installed.pods(namespace)[:1]) == [weights_digest("v2")]
    if asking is not None:
        rights_are_used(installed, asking)


def rights_are_used(installed: Installed, asking: Asking) -> None:
    """Of the agent all, of the operator those that it has for the agent alone."""
    account = f"{RELEASE}-agent"
    may = {rule.right for rule in granted(installed, account)}
    until(PATIENCE_SECONDS, "the agent has used all its rights", lambda: asking.used(account) >= may)
    assert asking.used(account) == may
    operators = {rule.right for rule in granted(installed, f"{RELEASE}-operator") if rule.right[1] == "pods"}
    until(PATIENCE_SECONDS, "the operator has used its rights", lambda: asking.used(f"{RELEASE}-operator") >= operators)
    assert {right for right in asking.used(f"{RELEASE}-operator") if right[1] == "pods"} == operators
    assert refused(asking.by(account)) == []


def test_where_no_folder_of_the_node_may_be_mounted_the_agent_hands_the_files_over(
    node: Node | ForeignCluster, installed: Installed, baseline: str, tmp_path: Path
) -> None:
    source: S3 = s3(installed, node.load, baseline, tmp_path)
    source.put("v1", files("v1"), manifest("v1"))
    installed.apply(with_artifacts("v1", MODEL.root), service(), namespace=baseline)
    until(PATIENCE_SECONDS, "it is known how files come", lambda: delivery(installed, baseline) == "Agent")
    installed.apply(model(installed, 1), namespace=baseline)
    until(PATIENCE_SECONDS, "v1 is served", lambda: is_served(installed, baseline, "v1", 1))
    without_source(installed, baseline)
    installed.kubectl("scale", "-n", baseline, f"deployment/{APP}", "--replicas=3")
    until(PATIENCE_SECONDS, "three pods are Ready", lambda: all_ready(installed, baseline, 3))
    pods = installed.pods(baseline)
    assert volume_kinds(pods) == {"emptyDir"}
    assert weights_in(installed, baseline, pods) == [weights_digest("v1")] * 3
