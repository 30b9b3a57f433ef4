"""The leader dies, and the API server goes away: the operator recovers by itself, and what is changed afterwards is acted upon."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.containers import process
from tests.cluster.installing import SYSTEM, Installed, install, loaded
from tests.cluster.node import Node
from tests.cluster.servers import SLOW
from tests.cluster.story import Served, cache, condition, deployment, ready, until
from tests.cluster.surroundings import a_namespace, say

from inference_cache_contract.pod import CACHE_ANNOTATION, CONFIGURATION_ANNOTATION

pytestmark = [pytest.mark.services, pytest.mark.slow]
LEADER_SECONDS = 15.0
READY_SECONDS = 180.0
AWAY_SECONDS = float(os.environ.get("AWAY_SECONDS", "10"))
"""`make soak` takes longer."""


@pytest.fixture(scope="module")
def installed(own_node: Node, helm: Path) -> Installed:
    return install(own_node, helm, loaded(own_node))


@pytest.fixture
def served(installed: Installed) -> Iterator[str]:
    """A namespace with a cache and one pod, that is served."""
    with a_namespace(installed) as namespace:
        change(installed, namespace, "v1")
        yield namespace


def change(installed: Installed, namespace: str, version: str) -> None:
    """Until `version` is what is served."""
    served = Served(version, replicas=1, annotations={"inferencecache.io/version": version})
    installed.apply(cache(version), deployment(installed.image, served), namespace=namespace)

    def stable() -> bool:
        status = installed.status(namespace)
        return status.get("activeVersion") == version and condition(status, "Ready").get("status") == "True"

    until(READY_SECONDS, f"{version} is served", stable)


def system_pods(installed: Installed) -> list[dict[str, Any]]:
    return installed.pods(SYSTEM, "app.kubernetes.io/name=inference-cache")


def lives(installed: Installed) -> list[tuple[str, int]]:
    """Pods of the release, and how often they were started anew."""
    return sorted((pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in system_pods(installed))


def lease(installed: Installed) -> Mapping[str, Any]:
    return dict(installed.get("lease", "inference-cache-operator", namespace=SYSTEM)["spec"])


def test_another_leader_takes_over_from_one_that_is_killed(own_node: Node, installed: Installed, served: str) -> None:
    until(60, "a leader", lambda: lease(installed).get("holderIdentity"))
    before = lease(installed)["holderIdentity"]
    pod = installed.get("pod", before, namespace=SYSTEM)
    operator = process(own_node, pod, "operator", lambda command: " operator" in command)
    begun = time.monotonic()
    operator.signal(signal.SIGKILL)
    installed.kubectl("delete", "pod", "-n", SYSTEM, before, "--force", "--grace-period=0")
    after = until(LEADER_SECONDS * SLOW, "another leader", lambda: (now := lease(installed)["holderIdentity"]) not in ("", before) and now)
    say(f"{after} leads {time.monotonic() - begun:.1f} s after {before} was killed")
    change(installed, served, "v2")
    until(READY_SECONDS, "both are Ready", lambda: [ready(each) for each in system_pods(installed)] == [True] * 4)


def test_all_recovers_by_itself_when_the_api_server_is_back(own_node: Node, installed: Installed, served: str) -> None:
    until(READY_SECONDS, "all are Ready", lambda: [ready(each) for each in system_pods(installed)] == [True] * 4)
    before = lives(installed)
    api_server = own_node.plane.api_server
    api_server.kill()
    try:
        away = time.monotonic() + AWAY_SECONDS
        until(AWAY_SECONDS * SLOW, "the time to pass", lambda: time.monotonic() > away)
    finally:
        api_server.start()
    own_node.plane.wait_ready()
    begun = time.monotonic()
    installed.apply(cache("v1", exact={"ttl": "77m"}), namespace=served)
    until(READY_SECONDS, "the change is acted upon", lambda: all("77m" in configuration(pod) for pod in installed.pods(served)))
    say(f"a change was acted upon {time.monotonic() - begun:.1f} s after the API server was back")
    installed.kubectl("scale", "-n", served, "deployment/vllm", "--replicas=2")
    pods = until(READY_SECONDS, "another pod", lambda: (now := installed.pods(served)) and len(now) == 2 and now)
    assert all(CACHE_ANNOTATION in pod["metadata"]["annotations"] for pod in pods)
    until(READY_SECONDS, "all are Ready", lambda: [ready(each) for each in system_pods(installed)] == [True] * 4)
    assert lives(installed) == before


def configuration(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["annotations"].get(CONFIGURATION_ANNOTATION, ""))
