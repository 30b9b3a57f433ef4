"""The operator and its webhooks may do what they do, and nothing else; the pods they edit may run where Pod Security is strictest."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.installing import RELEASE, SYSTEM, Installed, install, left_behind, loaded
from tests.cluster.node import Node
from tests.cluster.rights import Asking, asking_since_now, granted, refused
from tests.cluster.story import APP, Served, cache, condition, deployment, ready, until
from tests.cluster.surroundings import a_namespace, say

from inference_cache_contract.pod import CACHE_ANNOTATION, GROUP, ROLLOUT_ANNOTATION

pytestmark = [pytest.mark.services, pytest.mark.slow]
READY_SECONDS = 180.0
EXACT_ONLY = {"semantic": {"mode": "Off"}}
STRICT = ("pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/enforce-version=latest")


@pytest.fixture(scope="module")
def asking(own_node: Node, helm: Path) -> Asking:
    """Since before anything was installed: some rights are used once, and others may have installed with more."""
    former = install(own_node, helm, loaded(own_node))
    former.uninstall()
    until(60, "nothing is left", lambda: not left_behind(former))
    return asking_since_now(own_node)


@pytest.fixture(scope="module")
def installed(own_node: Node, helm: Path, asking: Asking) -> Installed:
    return install(own_node, helm, loaded(own_node))


def workloads(image: str) -> list[dict[str, Any]]:
    """One of each kind that the operator rolls."""
    several = relabelled(deployment(image, Served("v1", replicas=2)), "several")
    stateful = relabelled(deployment(image, Served("v1", replicas=2), name="stateful"), "stateful")
    stateful["kind"] = "StatefulSet"
    del stateful["spec"]["strategy"]
    daemon = relabelled(deployment(image, Served("v1"), name="daemon"), "daemon")
    daemon["kind"] = "DaemonSet"
    del daemon["spec"]["replicas"], daemon["spec"]["strategy"]
    daemon["spec"]["updateStrategy"] = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return [several, stateful, daemon]


def annotated_by_somebody(image: str) -> dict[str, Any]:
    """Whose template cannot be changed, so that its pods are evicted."""
    return relabelled(deployment(image, Served("v1", replicas=2, annotations={ROLLOUT_ANNOTATION: "kept"}), name="kept"), "kept")


def relabelled(body: dict[str, Any], part: str) -> dict[str, Any]:
    body["spec"]["selector"] = {"matchLabels": {"app": APP, "part": part}}
    body["spec"]["template"]["metadata"]["labels"] = {"app": APP, "part": part}
    body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    return body


def refused_pod(image: str) -> dict[str, Any]:
    """In the network of its node no sidecar can stand before it."""
    spec = {**deployment(image, Served("v1"))["spec"]["template"]["spec"], "hostNetwork": True, "nodeName": "nowhere"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "refused", "labels": {"app": APP}}, "spec": spec}


def test_what_is_granted_is_what_is_used(asking: Asking, installed: Installed) -> None:
    with a_namespace(installed) as namespace:
        own = json.dumps(annotated_by_somebody(installed.image))
        installed.kubectl("apply", "-n", namespace, "--server-side", "--field-manager=gitops", "-f", "-", stdin=own)
        installed.apply(*workloads(installed.image), namespace=namespace)
        until(READY_SECONDS, "seven pods are Ready", lambda: len(ready_pods(installed, namespace)) == 7)
        installed.apply(cache("v1", **EXACT_ONLY), namespace=namespace)
        until(READY_SECONDS, "all are injected", lambda: len(ready_pods(installed, namespace, injected=True)) == 7)
        until(60, "the cache is Ready", lambda: condition(installed.status(namespace), "Ready").get("status") == "True")
        installed.apply(refused_pod(installed.image), namespace=namespace)
        secret = f"secret/{RELEASE}-certificates"
        installed.kubectl("annotate", "-n", SYSTEM, secret, f"{GROUP}/rotate=now", "--overwrite")
        installed.apply(cache("v1", mode="Bypass", **EXACT_ONLY), namespace=namespace)
        for account in (f"{RELEASE}-operator", f"{RELEASE}-webhook"):
            rules = granted(installed, account)
            may = {rule.right for rule in rules}
            until(READY_SECONDS, f"{account} to use {may - asking.used(account)}", lambda may=may, who=account: asking.used(who) >= may)
            assert asking.used(account) == may
            events = asking.by(account)
            assert refused(events) == []
            assert {rule.names for rule in rules if rule.right[1] == "secrets"} == {(f"{RELEASE}-certificates",)}
            say(f"{account}: {len(may)} rights, all of them used, in {len(events)} requests")


def ready_pods(installed: Installed, namespace: str, injected: bool = False) -> list[dict[str, Any]]:
    pods = [pod for pod in installed.pods(namespace) if ready(pod) and "deletionTimestamp" not in pod["metadata"]]
    return [pod for pod in pods if not injected or CACHE_ANNOTATION in pod["metadata"].get("annotations", {})]


def test_injected_pods_run_where_pod_security_is_restricted(installed: Installed) -> None:
    body = deployment(installed.image, Served("v1", replicas=1))
    spec = body["spec"]["template"]["spec"]
    spec["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec["containers"][0]["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    with a_namespace(installed, *STRICT) as namespace:
        installed.apply(cache("v1"), body, namespace=namespace)
        until(READY_SECONDS, "the pod is Ready", lambda: len(ready_pods(installed, namespace, injected=True)) == 1)
