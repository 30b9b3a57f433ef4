"""What is changed in a resource reaches the sidecars of running pods, and they say so; nothing is started anew for it."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.asking import ask_once, asking
from tests.cluster.installing import Installed, install, loaded
from tests.cluster.node import Node
from tests.cluster.servers import SLOW
from tests.cluster.story import Served, cache, condition, deployment, ready, until
from tests.cluster.surroundings import a_namespace, say

from inference_cache_contract.configuration import Configuration, digest
from inference_cache_contract.endpoints import ADMIN_PORT, SERVING_PORT, STATUS
from inference_cache_contract.pod import FLUSH_ANNOTATION

pytestmark = [pytest.mark.services, pytest.mark.slow]
REACHED_SECONDS = 2.0
CHANGES = 20
READY_SECONDS = 180.0
QUESTION = "How do I reset my password?"


@pytest.fixture(scope="module")
def installed(own_node: Node, helm: Path) -> Installed:
    return install(own_node, helm, loaded(own_node))


@dataclass(frozen=True, slots=True)
class Scene:
    """A cache with two pods."""

    installed: Installed
    namespace: str
    pods: Sequence[Mapping[str, Any]]

    def urls(self, port: int) -> list[str]:
        return [self.installed.forward(self.namespace, f"pod/{pod['metadata']['name']}", port) for pod in self.pods]

    def statuses(self) -> list[dict[str, Any]]:
        return [status_of(url) for url in self.urls(ADMIN_PORT)]

    def unchanged(self) -> bool:
        """The same pods are there, and no container of theirs was started anew."""
        return lives(self.installed.pods(self.namespace)) == lives(self.pods)


@pytest.fixture(scope="module")
def scene(installed: Installed) -> Iterator[Scene]:
    with a_namespace(installed) as namespace:
        installed.apply(cache("v1"), deployment(installed.image, Served("v1")), namespace=namespace)
        until(READY_SECONDS, "the pods are Ready", lambda: [ready(pod) for pod in installed.pods(namespace)] == [True, True])
        made = Scene(installed, namespace, installed.pods(namespace))
        until(READY_SECONDS, "the cache is Ready", lambda: condition(installed.status(namespace), "Ready").get("status") == "True")
        yield made


def lives(pods: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[int]]]:
    return sorted((pod["metadata"]["uid"], restarts(pod)) for pod in pods)


def restarts(pod: Mapping[str, Any]) -> list[int]:
    return [each["restartCount"] for kind in ("initContainerStatuses", "containerStatuses") for each in pod["status"][kind]]


def status_of(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url + STATUS, timeout=30) as answer:
        return dict(json.load(answer))


def reached(urls: Iterable[str], holds: Callable[[Mapping[str, Any]], bool], what: str) -> float:
    """Seconds until every sidecar's status says so."""
    begun, left = time.monotonic(), list(urls)
    while left := [url for url in left if not holds(status_of(url))]:
        assert time.monotonic() - begun < REACHED_SECONDS * SLOW, f"not within {REACHED_SECONDS * SLOW:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - begun


def wanted(scene: Scene, body: Mapping[str, Any]) -> str:
    """The digest of what the sidecars are to be told once `body` is applied."""
    dry = scene.installed.kubectl("apply", "-n", scene.namespace, "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(body))
    return digest(Configuration(json.loads(dry)["spec"]).text())


def test_changes_of_the_spec_and_of_the_mode_reach_every_pod_and_are_acknowledged(scene: Scene) -> None:
    urls, took = scene.urls(ADMIN_PORT), list[float]()
    for number in range(CHANGES):
        mode = "Bypass" if number % 2 == 0 else "Enabled"
        body = cache("v1", mode=mode, exact={"ttl": f"{number + 1}h"})
        told = wanted(scene, body)
        scene.installed.apply(body, namespace=scene.namespace)
        took.append(reached(urls, lambda status, told=told: status["configuration"]["digest"] == told, f"change {number}"))
        assert {each["mode"] for each in scene.statuses()} == {mode}
    took.sort()
    say(f"{CHANGES} changes reached both pods: median {took[CHANGES // 2]:.2f} s, slowest {took[-1]:.2f} s")
    assert scene.unchanged()
    served = until(60, "it is acknowledged", lambda: condition(scene.installed.status(scene.namespace), "Ready").get("status") == "True")
    assert served


def test_a_flush_order_makes_every_pod_forget_and_is_counted(scene: Scene) -> None:
    urls = scene.urls(SERVING_PORT)
    for url in urls:
        until(30, "hits", lambda url=url: ask_once(url, QUESTION).hit)
    before = {each["id"] for status in scene.statuses() for each in status["flushes"]}
    order = ("annotate", "-n", scene.namespace, "inferencecache/acme", f"{FLUSH_ANNOTATION}=now", "--overwrite")
    scene.installed.kubectl(*order)

    def acknowledged(status: Mapping[str, Any]) -> bool:
        return any(each["acknowledged"] and each["id"] not in before for each in status["flushes"])

    say(f"the flush reached both pods after {reached(scene.urls(ADMIN_PORT), acknowledged, 'the flush'):.2f} s")
    assert [ask_once(url, QUESTION).hit for url in urls] == [False, False]
    flushed = until(30, "the status says so", lambda: scene.installed.status(scene.namespace).get("flushedVersions"))
    assert flushed[-1]["keys"] >= len(urls)
    assert scene.unchanged()


def test_without_its_resource_pods_go_on_serving_and_cache_nothing(scene: Scene) -> None:
    with ExitStack() as stack:
        told = [stack.enter_context(asking(url, [QUESTION])) for url in scene.urls(SERVING_PORT)]
        until(30, "hits", lambda: all(each.asked and each.asked[-1].hit for each in told))
        scene.installed.kubectl("delete", "-n", scene.namespace, "inferencecache/acme", "--wait=false")
        took = reached(scene.urls(ADMIN_PORT), lambda status: status["mode"] == "Bypass", "the deletion")
        done = time.monotonic()
        until(30, "more answers", lambda: all(len(each.since(done)) > 20 for each in told))
    say(f"the deletion reached both pods after {took:.2f} s")
    assert [asked.failed for each in told for asked in each.asked if asked.failed] == []
    assert not any(asked.hit for each in told for asked in each.since(done))
    assert scene.unchanged()
