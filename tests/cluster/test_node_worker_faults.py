"""A cache worker that is killed, or stops dead, in a running pod: clients go on being answered, and the model server never notices.

And the other way round: a model server that is started anew alone is cached again.
"""

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.asking import ask_once, asking
from tests.cluster.containers import container_status, process
from tests.cluster.installing import Installed, install, loaded
from tests.cluster.node import Node
from tests.cluster.servers import SLOW
from tests.cluster.story import Served, cache, deployment, ready, until
from tests.cluster.surroundings import a_namespace, say

from inference_cache_contract.endpoints import ADMIN_PORT, SERVING_PORT, STATUS
from inference_cache_contract.pod import SIDECAR_CONTAINER

pytestmark = [pytest.mark.services, pytest.mark.slow]
FIRST_ANSWER_SECONDS = 1.0
HITS_BACK_SECONDS = 3.0
READY_SECONDS = 180.0
LIVENESS = {
    "httpGet": {"path": "/health", "port": "http"},
    "initialDelaySeconds": 5,
    "periodSeconds": 2,
    "timeoutSeconds": 3,
    "terminationGracePeriodSeconds": 12,
}
QUESTIONS = [f"How do I {subject}?" for subject in ("reset my password", "cancel an order", "export my data")]


@pytest.fixture(scope="module")
def installed(own_node: Node, helm: Path) -> Installed:
    return install(own_node, helm, loaded(own_node))


@pytest.fixture(scope="module")
def served(installed: Installed) -> Iterator[str]:
    """A namespace with a cache and one pod."""
    with a_namespace(installed) as namespace:
        body = deployment(installed.image, Served("v1", replicas=1))
        body["spec"]["template"]["spec"]["containers"][0]["livenessProbe"] = LIVENESS
        installed.apply(cache("v1"), body, namespace=namespace)
        until(READY_SECONDS, "the pod is Ready", lambda: [ready(pod) for pod in installed.pods(namespace)] == [True])
        yield namespace


def lived_through(pod: dict[str, Any]) -> tuple[Any, ...]:
    """What would be another if the pod, or a container of it, had been started anew."""
    model, sidecar = (container_status(pod, name) for name in ("server", SIDECAR_CONTAINER))
    started = model["state"]["running"]["startedAt"]
    return (pod["metadata"]["uid"], started, model["restartCount"], sidecar["restartCount"], sidecar["containerID"])


@pytest.mark.parametrize("fault", [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, id="frozen")])
def test_a_worker_that_is_gone_costs_new_connections_nothing(
    own_node: Node, installed: Installed, served: str, fault: signal.Signals
) -> None:
    (before,) = installed.pods(served)
    url = installed.forward(served, f"pod/{before['metadata']['name']}", 8000)
    with asking(url, QUESTIONS) as told:
        until(60, "hits", lambda: told.asked and told.asked[-1].hit)
        worker = process(own_node, before, SIDECAR_CONTAINER, lambda command: ".supervisor.worker" in command)
        broken = time.monotonic()
        worker.signal(fault)
        done = time.monotonic()
        until(60, "hits again", lambda: [each for each in told.since(done)[3:] if each.hit])
        time.sleep(1.0)  # the traffic goes on for a while: one hit is not enough
    since = told.since(done)
    first = min(each.ended for each in since) - broken
    slowest = max(each.seconds for each in since)
    hits = [each.ended - broken for each in since if each.hit]
    back = next(at for at in hits if at > first)
    say(f"{fault.name}: first answer after {first:.2f} s, slowest {slowest:.2f} s, hits after {back:.2f} s, {len(since)} connections")
    assert [each.failed for each in since if each.failed] == []
    assert slowest < FIRST_ANSWER_SECONDS * SLOW
    assert back < HITS_BACK_SECONDS * SLOW
    (after,) = installed.pods(served)
    assert lived_through(after) == lived_through(before)
    assert lived_through(after)[2:4] == (0, 0)


def test_a_model_server_that_kubelet_restarts_alone_is_cached_again(own_node: Node, installed: Installed, served: str) -> None:
    """Its preStop hook is run then too, so that the sidecar drains; but the pod lives on."""
    (before,) = installed.pods(served)
    name = before["metadata"]["name"]
    url, admin = (installed.forward(served, f"pod/{name}", port) for port in (SERVING_PORT, ADMIN_PORT))
    process(own_node, before, "server", lambda command: "vllm" in command).signal(signal.SIGSTOP)
    until(READY_SECONDS, "it drains", lambda: status_of(admin)["draining"])

    def restarted() -> bool:
        (pod,) = installed.pods(served)
        return bool(container_status(pod, "server")["restartCount"]) and ready(pod)

    until(READY_SECONDS, "it is started anew", restarted)
    begun = time.monotonic()
    until(READY_SECONDS, "hits", lambda: ask_once(url, QUESTIONS[0]).hit)
    say(f"hits {time.monotonic() - begun:.1f} s after the model server was Ready again")
    assert not status_of(admin)["draining"]
    (after,) = installed.pods(served)
    sidecars = [container_status(pod, SIDECAR_CONTAINER)["containerID"] for pod in (before, after)]
    assert sidecars[0] == sidecars[1]


def status_of(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url + STATUS, timeout=30) as answer:
        return dict(json.load(answer))
