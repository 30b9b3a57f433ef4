"""Pods without the sidecar, or with an outdated one, are replaced without interrupting anybody, on a real API server."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.controller_running import PACE, SECONDS, Cache, Sidecars, answering, controlling, deploy, deployment
from tests.cluster.played_kubelet import played_kubelet
from tests.cluster.servers import until
from tests.cluster.webhook_processes import Installed, installed, is_injected

from inference_cache_contract.pod import ROLLOUT_ANNOTATION, VERSION_ANNOTATION
from inference_cache_operator.audit.workloads import is_rolling, read_workload

REAPPLYING_SECONDS = float(os.environ.get("REAPPLYING_SECONDS", "10"))
"""Of each of the six ways: a minute in all, ten in `make soak`."""
MINUTE_SECONDS = 60.0
HUNDRED_PODS_SECONDS = 300.0
"""For the cluster itself to make them, or to look at them."""
pytestmark = [pytest.mark.services, pytest.mark.slow]
APPLY = "application/apply-patch+yaml"


@pytest.fixture
def install(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Installed]:
    with installed(control_plane, namespace, tmp_path, replicas=1) as ready, played_kubelet(control_plane.api, namespace):
        yield ready


@pytest.fixture
def cache(install: Installed) -> Iterator[Cache]:
    with answering(Sidecars(install.plane.api)) as sidecars, controlling(install, sidecars):
        yield Cache(install.plane.api, install.namespace)


@contextmanager
def least_ready(cache: Cache) -> Iterator[list[int]]:
    """How many Ready pods there were, at every look."""
    seen, ended = list[int](), threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            seen.append(
                sum(
                    any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])) for pod in cache.pods()
                )
            )

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join(SECONDS)


def ready_pods(cache: Cache, count: int, seconds: float = SECONDS) -> None:
    def ready() -> bool:
        path = f"/apis/apps/v1/namespaces/{cache.namespace}/deployments"
        return sum(each["status"].get("readyReplicas", 0) for each in cache.api.request("GET", path)["items"]) == count

    until(ready, f"{count} Ready pods", seconds)


def test_a_deployment_that_was_there_first_is_rolled_once_and_always_keeps_a_ready_pod(install: Installed, cache: Cache) -> None:
    deploy(cache.api, cache.namespace, deployment())
    ready_pods(cache, 2)
    assert not any(map(is_injected, cache.pods()))
    with least_ready(cache) as seen:
        install.create_cache()
        cache.wait("Injected", "True", "Injected")
        cache.wait_serving()
    assert min(seen) >= 1
    assert all(map(is_injected, cache.pods()))
    body = cache.api.request("GET", f"/apis/apps/v1/namespaces/{cache.namespace}/deployments/vllm")
    assert body["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"


def test_of_a_hundred_deployments_that_were_there_first_no_pod_is_without_the_sidecar_a_minute_later(
    install: Installed, cache: Cache
) -> None:
    for number in range(100):
        deploy(cache.api, cache.namespace, deployment(f"vllm-{number}", replicas=1))
    ready_pods(cache, 100, HUNDRED_PODS_SECONDS)
    install.create_cache()
    until(lambda: all(map(is_injected, cache.pods())), "all to be injected", HUNDRED_PODS_SECONDS)
    # A quarter of a minute where nothing else runs.
    assert max(map(created, cache.pods())) - created(cache.body()) < timedelta(seconds=2 * MINUTE_SECONDS)


def created(body: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(body["metadata"]["creationTimestamp"])


def test_manual_leaves_the_pods_and_says_so(install: Installed, cache: Cache) -> None:
    deploy(cache.api, cache.namespace, deployment())
    ready_pods(cache, 2)
    before = {pod["metadata"]["uid"] for pod in cache.pods()}
    install.create_cache(rollout={"trigger": "Manual"})
    cache.wait("Reconciling", "True", "Manual")
    cache.wait("Injected", "False", "PodsMissing")
    assert {pod["metadata"]["uid"] for pod in cache.pods()} == before


def test_what_would_be_interrupted_is_left_and_says_so(install: Installed, cache: Cache) -> None:
    body = deployment()
    body["spec"]["strategy"] = {"type": "Recreate"}
    deploy(cache.api, cache.namespace, body)
    ready_pods(cache, 2)
    install.create_cache()
    cache.wait("Stalled", "True", "WouldInterrupt")
    until(lambda: bool(warned(cache, "WouldInterrupt")), "the event", SECONDS)
    (note,) = warned(cache, "WouldInterrupt")
    assert note.endswith(f"`kubectl rollout restart deployment/vllm -n {cache.namespace}`")


def warned(cache: Cache, reason: str) -> list[str]:
    events = cache.api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{cache.namespace}/events")["items"]
    return [each["note"] for each in events if (each["reason"], each["type"]) == (reason, "Warning")]


def test_a_pod_without_a_controller_is_reported_and_never_evicted(install: Installed, cache: Cache) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alone", "labels": {"app": "vllm"}},
        "spec": {"containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model=m"]}]},
    }
    install.create_pod(pod)
    install.create_cache()
    cache.wait("Stalled", "True", "NoController")
    assert [each["metadata"]["name"] for each in cache.pods()] == ["alone"]


def owned_by_somebody(cache: Cache, replicas: int) -> None:
    """A Deployment whose template's annotations another manager has applied as a whole, our own among them."""
    body = deployment(replicas=replicas, annotations={ROLLOUT_ANNOTATION: "mine"})
    path = f"/apis/apps/v1/namespaces/{cache.namespace}/deployments/vllm?fieldManager=gitops"
    cache.api.request("PATCH", path, body, APPLY)


def test_where_somebody_else_owns_the_annotations_pods_are_evicted_one_by_one(install: Installed, cache: Cache) -> None:
    owned_by_somebody(cache, 3)
    ready_pods(cache, 3)
    with least_ready(cache) as seen:
        install.create_cache()
        until(lambda: len(cache.pods()) == 3 and all(map(is_injected, cache.pods())), "all to be injected", SECONDS)
        cache.wait_serving(3)
    assert min(seen) >= 2
    body = cache.api.request("GET", f"/apis/apps/v1/namespaces/{cache.namespace}/deployments/vllm")
    assert body["spec"]["template"]["metadata"]["annotations"] == {ROLLOUT_ANNOTATION: "mine"}


def test_a_disruption_budget_is_respected(install: Installed, cache: Cache) -> None:
    owned_by_somebody(cache, 2)
    ready_pods(cache, 2)
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "vllm"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "vllm"}}},
    }
    path = f"/apis/policy/v1/namespaces/{cache.namespace}/poddisruptionbudgets"
    cache.api.request("POST", path, budget)
    until(lambda: cache.api.request("GET", f"{path}/vllm").get("status", {}).get("currentHealthy") == 2, "the budget", SECONDS)
    before = {pod["metadata"]["uid"] for pod in cache.pods()}
    install.create_cache()
    cache.wait("Reconciling", "True", "ReplacingPods")
    tried = time.monotonic() + 3
    until(lambda: time.monotonic() > tried, "some rounds", SECONDS)
    assert {pod["metadata"]["uid"] for pod in cache.pods()} == before
    cache.api.request("DELETE", f"{path}/vllm")
    until(lambda: len(cache.pods()) == 2 and all(map(is_injected, cache.pods())), "all to be injected", SECONDS)


def test_a_single_pod_is_not_evicted(install: Installed, cache: Cache) -> None:
    owned_by_somebody(cache, 1)
    ready_pods(cache, 1)
    before = {pod["metadata"]["uid"] for pod in cache.pods()}
    install.create_cache()
    cache.wait("Stalled", "True", "WouldInterrupt")
    assert {pod["metadata"]["uid"] for pod in cache.pods()} == before


def test_a_template_that_names_the_new_version_in_the_same_commit_is_not_rolled_again(install: Installed, cache: Cache) -> None:
    install.create_cache()
    deploy(cache.api, cache.namespace, deployment(annotations={VERSION_ANNOTATION: "v1"}))
    cache.wait_serving()
    cache.bump("v2")
    path = f"/apis/apps/v1/namespaces/{cache.namespace}/deployments/vllm"
    change = {"spec": {"template": {"metadata": {"annotations": {VERSION_ANNOTATION: "v2"}}}}}
    cache.api.request("PATCH", path, change, "application/merge-patch+json")
    until(lambda: cache.status()["activeVersion"] == "v2", "v2", SECONDS)
    cache.wait("Ready", "True", "Ready")
    assert ROLLOUT_ANNOTATION not in cache.api.request("GET", path)["spec"]["template"]["metadata"]["annotations"]


@pytest.mark.parametrize("how", ["client-side", "server-side"])
@pytest.mark.parametrize("annotations", [pytest.param("absent", id="absent"), pytest.param({}, id="empty"), pytest.param(None, id="null")])
def test_a_gitops_tool_that_applies_again_and_again_is_not_fought(install: Installed, cache: Cache, how: str, annotations: Any) -> None:
    body = deployment()
    if annotations == "absent":
        del body["spec"]["template"]["metadata"]["annotations"]
    else:
        body["spec"]["template"]["metadata"]["annotations"] = annotations
    flags = ["--server-side", "--field-manager=gitops"] if how == "server-side" else []

    def applied() -> None:
        install.plane.kubectl("apply", *flags, "-n", cache.namespace, "-f", "-", stdin=json.dumps(body))

    applied()
    ready_pods(cache, 2)
    install.create_cache()
    until(lambda: len(cache.pods()) == 2 and all(map(is_injected, cache.pods())), "all to be injected", SECONDS)
    cache.wait_serving()
    path = f"/apis/apps/v1/namespaces/{cache.namespace}/deployments/vllm"
    applied()
    # `annotations: null` takes ours out once, so that the pods are replaced once more: by injected ones, which nobody needs to roll.
    until(lambda: not is_rolling(read_workload("Deployment", cache.api.request("GET", path))), "the owner's own rollout", SECONDS)
    until(lambda: len(cache.pods()) == 2 and all(map(is_injected, cache.pods())), "all to be injected", SECONDS)
    generation, pods = cache.api.request("GET", path)["metadata"]["generation"], {pod["metadata"]["uid"] for pod in cache.pods()}
    end = time.monotonic() + REAPPLYING_SECONDS
    while time.monotonic() < end:
        applied()
        time.sleep(PACE.resync / 4)
    assert cache.api.request("GET", path)["metadata"]["generation"] == generation
    assert {pod["metadata"]["uid"] for pod in cache.pods()} == pods
