"""Artifacts on a node, with nothing but the webhook's init containers: files are there before vLLM starts, or the old version goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.answers import door
from tests.cluster.clusters import ForeignCluster
from tests.cluster.installing import Installed, install, loaded
from tests.cluster.model_files import (
    WEIGHTS,
    artifacts_ready,
    corrupt,
    digest_in,
    files,
    is_served,
    manifest,
    of_version,
    phase_of,
    weights_digest,
    with_artifacts,
)
from tests.cluster.node import Node
from tests.cluster.s3 import BUCKET, NAME, S3, s3
from tests.cluster.story import Served, deployment, ready, service, until

from inference_cache_contract.pod import VERSION_ANNOTATION
from inference_cache_operator.injection.fetching import CONTAINER, is_fetching

pytestmark = [pytest.mark.services, pytest.mark.slow]
PATIENCE_SECONDS = 240.0
BACK_OFF_SECONDS = 360.0
"""Kubelet waits up to five minutes before it starts a container again."""
CLAIM = "models"
V1, V2 = (Served(version, annotations={VERSION_ANNOTATION: version}) for version in ("v1", "v2"))


@pytest.fixture(scope="module")
def installed(node: Node | ForeignCluster, helm: Path) -> Installed:
    return install(node, helm, loaded(node))


def test_a_corrupt_version_leaves_the_old_one_serving_until_it_is_put_right(
    node: Node | ForeignCluster, installed: Installed, node_namespace: str, tmp_path: Path
) -> None:
    namespace, image = node_namespace, installed.image
    source: S3 = s3(installed, node.load, namespace, tmp_path)
    source.put("v1", files("v1"), manifest("v1"))
    source.put("v2", corrupt("v2"), manifest("v2"))

    installed.apply(with_artifacts("v1", V1.root), deployment(image, V1), service(), namespace=namespace)
    until(PATIENCE_SECONDS, "v1 is served", lambda: is_served(installed, namespace, "v1", V1.replicas))
    first = of_version(installed, namespace, "v1")
    assert len(first) == V1.replicas
    for pod in first:
        assert any(map(is_fetching, pod["spec"]["initContainers"]))
        assert digest_in(installed, namespace, pod, f"{V1.root}/{WEIGHTS}") == weights_digest("v1")
    until(PATIENCE_SECONDS, "all have their files", lambda: artifacts_ready(installed, namespace).get("reason") == "Ready")

    installed.apply(with_artifacts("v2", V2.root), deployment(image, V2), namespace=namespace)
    until(PATIENCE_SECONDS, "it is said what is wrong", lambda: artifacts_ready(installed, namespace).get("reason") == "Corrupt")
    assert WEIGHTS in artifacts_ready(installed, namespace)["message"]
    assert installed.status(namespace)["activeVersion"] == "v1"
    still = of_version(installed, namespace, "v1")
    assert {pod["metadata"]["uid"] for pod in still} == {pod["metadata"]["uid"] for pod in first}
    assert all(map(ready, still))
    for pod in of_version(installed, namespace, "v2"):
        # None are told of before kubelet has seen the pod.
        for server in pod["status"].get("containerStatuses", ()):
            assert "waiting" in server["state"]
            assert not server["restartCount"]
    assert door(installed, namespace, still[0]["metadata"]["name"]).ask("Who are you?").by == V1.root

    source.put("v2", files("v2"), manifest("v2"))
    until(BACK_OFF_SECONDS, "v2 is served", lambda: is_served(installed, namespace, "v2", V2.replicas))
    (pod, *_) = of_version(installed, namespace, "v2")
    assert digest_in(installed, namespace, pod, f"{V2.root}/{WEIGHTS}") == weights_digest("v2")
    until(PATIENCE_SECONDS, "all have their files", lambda: artifacts_ready(installed, namespace).get("reason") == "Ready")
    (remembered,) = installed.status(namespace)["activeArtifacts"]
    assert remembered["source"] == f"s3://{BUCKET}/v2/"


def test_pods_that_share_a_claim_start_without_the_source(
    node: Node | ForeignCluster, installed: Installed, node_namespace: str, tmp_path: Path
) -> None:
    namespace, image = node_namespace, installed.image
    source: S3 = s3(installed, node.load, namespace, tmp_path)
    source.put("v1", files("v1"), manifest("v1"))
    installed.apply(*shared_claim(namespace, image), namespace=namespace)
    until(PATIENCE_SECONDS, "anybody may write the claim", lambda: phase_of(installed, namespace, "prepare") == "Succeeded")

    one, many = (replace(V1, replicas=count) for count in (1, 4))
    claim = {"artifactStorage": {"persistentVolumeClaim": {"claimName": CLAIM}}}
    installed.apply(with_artifacts("v1", V1.root, **claim), deployment(image, one), service(), namespace=namespace)
    until(PATIENCE_SECONDS, "v1 is served", lambda: is_served(installed, namespace, "v1", 1))
    (first,) = installed.pods(namespace)
    installed.kubectl("delete", "-n", namespace, "pod", NAME, "--wait=true")

    installed.apply(deployment(image, many), namespace=namespace)
    until(PATIENCE_SECONDS, "four pods are Ready", lambda: [ready(pod) for pod in installed.pods(namespace)] == [True] * 4)
    for pod in installed.pods(namespace):
        name = pod["metadata"]["name"]
        assert digest_in(installed, namespace, pod, f"{V1.root}/{WEIGHTS}") == weights_digest("v1")
        told = installed.kubectl("logs", "-n", namespace, name, "-c", f"{CONTAINER}0")
        assert ("already there" in told) is (name != first["metadata"]["name"])
    # Nobody writes through the mount.
    tried = installed.kubectl(
        "exec", "-n", namespace, first["metadata"]["name"], "-c", "server", "--", "touch", f"{V1.root}/x", check=False
    )
    assert not tried
    assert "x" not in installed.kubectl("exec", "-n", namespace, first["metadata"]["name"], "-c", "server", "--", "ls", V1.root).split()
    installed.kubectl("delete", "-n", namespace, "inferencecaches,deployments,pods", "--all", "--wait=true")
    installed.kubectl("delete", "pv", f"{CLAIM}-{namespace}", "--wait=false")


def shared_claim(namespace: str, image: str) -> list[dict[str, Any]]:
    """A folder of the node, and a pod that lets anybody write it: volumes of this kind know no fsGroup."""
    volume = f"{CLAIM}-{namespace}"
    size, modes, own = {"storage": "1Gi"}, ["ReadWriteMany"], {"storageClassName": "", "volumeName": volume}
    folder = {"path": f"/var/lib/inference-cache-{namespace}", "type": "DirectoryOrCreate"}
    claimed = {"claimRef": {"namespace": namespace, "name": CLAIM}, "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain"}
    container = {
        "name": "prepare",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["chmod", "777", "/store"],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "store", "mountPath": "/store"}],
    }
    volumes = [{"name": "store", "persistentVolumeClaim": {"claimName": CLAIM}}]
    pod = {"containers": [container], "volumes": volumes, "restartPolicy": "Never"}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {"capacity": size, "accessModes": modes, "hostPath": folder, **claimed},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM},
            "spec": {"accessModes": modes, "resources": {"requests": size}, **own},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "prepare", "labels": {"app": "prepare"}}, "spec": pod},
    ]
