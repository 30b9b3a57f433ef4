"""Webhooks that are down or frozen: pods start nevertheless, and those that came without a sidecar are replaced without harm."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.containers import Process, process
from tests.cluster.errors import CommandFailed
from tests.cluster.installing import SYSTEM, Installed, install, loaded
from tests.cluster.node import Node
from tests.cluster.servers import SLOW
from tests.cluster.story import APP, Served, cache, condition, deployment, questions, ready, service, traffic, until
from tests.cluster.surroundings import a_namespace, say

from inference_cache_contract.pod import CACHE_ANNOTATION, ROLLOUT_ANNOTATION

pytestmark = [pytest.mark.services, pytest.mark.slow]
FOUND_SECONDS = 30.0
READY_SECONDS = 180.0
WEBHOOKS = ("deployment/inference-cache-webhook-a", "deployment/inference-cache-webhook-b")
OTHER_PODS = 200
AT_ONCE_SECONDS = 0.05
"""For a pod that no webhook is asked about, on average."""


@pytest.fixture(scope="module")
def installed(own_node: Node, helm: Path) -> Installed:
    return install(own_node, helm, loaded(own_node))


def injected(pod: Mapping[str, Any]) -> bool:
    return CACHE_ANNOTATION in pod["metadata"].get("annotations", {})


def lasting(body: dict[str, Any], part: str) -> dict[str, Any]:
    """With a preStop hook of its own: whoever wants no request lost when pods are replaced has one, with a cache or without."""
    spec = body["spec"]
    spec["selector"] = {"matchLabels": {"app": APP, "part": part}}
    spec["template"]["metadata"]["labels"] = {"app": APP, "part": part}
    spec["template"]["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 10}}}
    return body


def pods_of(node: Node, namespace: str, part: str) -> list[dict[str, Any]]:
    return list(node.api.request("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector=part%3D{part}")["items"])


@contextmanager
def least_ready(node: Node, namespace: str, parts: Sequence[str]) -> Iterator[dict[str, int]]:
    """How many pods of each part were Ready, at the worst moment."""
    least, stopped = dict.fromkeys(parts, 1000), threading.Event()

    def look() -> None:
        while not stopped.wait(0.1):
            for part in parts:
                least[part] = min(least[part], sum(map(ready, pods_of(node, namespace, part))))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield least
    finally:
        stopped.set()
        watcher.join()


@contextmanager
def no_webhooks(installed: Installed) -> Iterator[None]:
    installed.kubectl("scale", "-n", SYSTEM, *WEBHOOKS, "--replicas=0")
    try:
        until(READY_SECONDS, "no webhook is left", lambda: not webhook_pods(installed))
        yield
    finally:
        installed.kubectl("scale", "-n", SYSTEM, *WEBHOOKS, "--replicas=1")
        until(READY_SECONDS, "the webhooks are back", lambda: [ready(pod) for pod in webhook_pods(installed)] == [True, True])


def webhook_pods(installed: Installed, group: str = "") -> list[dict[str, Any]]:
    found = installed.pods(SYSTEM, "app.kubernetes.io/name=inference-cache")
    return [pod for pod in found if pod["metadata"]["name"].startswith(f"inference-cache-webhook-{group}")]


def test_pods_that_came_while_no_webhook_was_there_are_replaced_without_harm(own_node: Node, installed: Installed) -> None:
    with a_namespace(installed) as namespace, ExitStack() as stack:
        single = lasting(deployment(installed.image, Served("v1", replicas=1), name="single"), "single")
        several = lasting(deployment(installed.image, Served("v1", replicas=2), name="several"), "several")
        with no_webhooks(installed):
            installed.apply(single, several, cache("v1"), service(), namespace=namespace)
            pods = until(READY_SECONDS, "all are Ready", lambda: all_ready(installed, namespace))
            begun = time.monotonic()
            assert not any(map(injected, pods))
            missing = until(
                FOUND_SECONDS * SLOW, "they are found", lambda: installed.status(namespace).get("pods", {}).get("missing") == len(pods)
            )
            assert missing
            say(f"pods without a sidecar were found {max(0.0, time.monotonic() - begun):.1f} s after they were Ready")
            installed.apply(traffic(installed.image, "--questions-a-visit", "1"), namespace=namespace)
            until(60, "answers", lambda: len(questions(installed, namespace)) > 20)
            least = stack.enter_context(least_ready(own_node, namespace, ("single", "several")))
        begun = time.monotonic()
        until(READY_SECONDS, "all are injected", lambda: (now := all_ready(installed, namespace)) and all(map(injected, now)))
        say(f"all were injected {time.monotonic() - begun:.1f} s after the webhooks were back; Ready at the worst moment: {least}")
        so_far = len(questions(installed, namespace))
        until(60, "more answers", lambda: len(questions(installed, namespace)) > so_far + 20)
        told = questions(installed, namespace)
        assert [each.failed for each in told if each.failed] == []
        assert least["single"] >= 1
        assert least["several"] >= 2
        until(60, "the cache is Ready", lambda: condition(installed.status(namespace), "Ready").get("status") == "True")
        templates = [installed.get("deployment", name, namespace=namespace)["spec"]["template"] for name in ("single", "several")]
        assert all(ROLLOUT_ANNOTATION in each["metadata"]["annotations"] for each in templates)


def all_ready(installed: Installed, namespace: str) -> list[dict[str, Any]]:
    pods = installed.pods(namespace)
    return pods if len(pods) == 3 and all(map(ready, pods)) else []


@contextmanager
def frozen(node: Node, installed: Installed, groups: Sequence[str]) -> Iterator[None]:
    """The webhooks of these groups: their connections stay open, and nothing answers."""
    stopped: list[Process] = []
    try:
        for group in groups:
            (pod,) = webhook_pods(installed, group)
            webhook = process(node, pod, "webhook", lambda command: " webhook" in command)
            webhook.signal(signal.SIGSTOP)
            stopped.append(webhook)
        yield
    finally:
        for each in stopped:
            # Kubelet may have ended it meanwhile, and started another.
            with suppress(CommandFailed):
                each.signal(signal.SIGCONT)
        until(READY_SECONDS, "the webhooks are back", lambda: [ready(pod) for pod in webhook_pods(installed)] == [True, True])


@pytest.mark.parametrize("group", ["a", "b"])
def test_pods_are_injected_while_one_webhook_is_frozen(own_node: Node, installed: Installed, group: str) -> None:
    with a_namespace(installed) as namespace:
        installed.apply(cache("v1"), namespace=namespace)
        with frozen(own_node, installed, [group]):
            begun = time.monotonic()
            installed.apply(deployment(installed.image, Served("v1", replicas=3)), namespace=namespace)
            pods = until(60, "three pods", lambda: (now := installed.pods(namespace)) and len(now) == 3 and now)
            say(f"three pods were admitted within {time.monotonic() - begun:.1f} s while webhook {group} was frozen")
            assert all(map(injected, pods))


def test_no_other_pod_waits_for_webhooks_that_do_not_answer(own_node: Node, installed: Installed) -> None:
    other = {"containers": [{"name": "main", "image": "docker.io/library/nginx:1"}]}
    with a_namespace(installed) as namespace:
        path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
        installed.apply(cache("v1"), namespace=namespace)
        until(60, "the namespace's account", lambda: own_node.api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default"))
        with frozen(own_node, installed, "ab"):
            begun = time.monotonic()
            for number in range(OTHER_PODS):
                metadata = {"name": f"other-{number}", "labels": {"app": APP}}
                own_node.api.request("POST", path, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": other})
            took = time.monotonic() - begun
    say(f"{OTHER_PODS} of {OTHER_PODS} other pods were admitted in {took:.1f} s")
    assert took / OTHER_PODS < AT_ONCE_SECONDS * SLOW
