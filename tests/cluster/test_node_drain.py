"""Pods with long streams are rolled and deleted: every stream ends whole, and no request fails."""

import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.cluster.asking import asking
from tests.cluster.installing import Installed, install, loaded
from tests.cluster.node import Node
from tests.cluster.story import APP, Served, cache, deployment, ready, service, until
from tests.cluster.surroundings import a_namespace, say

from inference_cache_contract.endpoints import ADMIN_PORT, STATUS

pytestmark = [pytest.mark.services, pytest.mark.slow]
READY_SECONDS = 180.0
STREAM_SECONDS = float(os.environ.get("STREAM_SECONDS", "15"))
"""`make soak` takes longer."""
STREAMS = 6
WORDS = 60
PACE = ("--tokens", str(WORDS), "--per-token", str(STREAM_SECONDS / WORDS))
LIMIT = {"max_tokens": 2}
"""Of the requests that come all the time, while the streams go on."""


@pytest.fixture(scope="module")
def installed(own_node: Node, helm: Path) -> Installed:
    return install(own_node, helm, loaded(own_node))


@pytest.fixture(scope="module")
def served(installed: Installed) -> Iterator[str]:
    """A namespace with a cache, two slow pods and their Service."""
    with a_namespace(installed) as namespace:
        slow = deployment(installed.image, Served("v1", arguments=PACE))
        installed.apply(cache("v1"), slow, service(), namespace=namespace)
        settled(installed, namespace)
        yield namespace


def settled(installed: Installed, namespace: str) -> list[dict[str, Any]]:
    """Until two pods are there, and Ready."""

    def pods() -> list[dict[str, Any]]:
        found = installed.pods(namespace)
        return found if [ready(pod) for pod in found] == [True, True] else []

    return list(until(READY_SECONDS, "two pods are Ready", pods))


def stream(url: str, question: str) -> tuple[str, float]:
    """What was streamed, and for how many seconds. Raises ValueError for one that broke off."""
    address, begun = urlsplit(url), time.monotonic()
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    try:
        body = {"model": "acme", "stream": True, "messages": [{"role": "user", "content": question}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200 or not content.endswith("data: [DONE]\n\n"):
        raise ValueError(f"status {answer.status}, {len(content)} characters, and no end")
    return content, time.monotonic() - begun


@contextmanager
def streams(url: str) -> Iterator[Sequence[Future[tuple[str, float]]]]:
    """Long ones, all begun at once."""
    with ThreadPoolExecutor(STREAMS) as pool:
        yield [pool.submit(stream, url, f"How do I export my data? Number {number} of {time.time()}") for number in range(STREAMS)]


def status_of(url: str) -> Mapping[str, Any]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("GET", STATUS)
        return dict(json.loads(connection.getresponse().read()))
    finally:
        connection.close()


@pytest.mark.parametrize("how", ["rollout", "deletion"])
def test_pods_with_long_streams_end_without_losing_one(installed: Installed, served: str, how: str) -> None:
    pods = settled(installed, served)
    names = [pod["metadata"]["name"] for pod in pods]
    grace = [pod["spec"]["terminationGracePeriodSeconds"] for pod in pods]
    assert grace == [150, 150], "the drain timeout and 30 seconds"
    url = installed.forward(served, f"service/{APP}", 80)
    admin = [installed.forward(served, f"pod/{name}", ADMIN_PORT) for name in names]
    with asking(url, ["How do I reset my password?", "How do I pay?", "How do I leave?"], LIMIT) as told, streams(url) as long:
        until(60, "streams and answers", lambda: len(told.asked) > 10 and not any(each.done() for each in long))
        end(installed, served, names, how)
        seen = until(60, "a pod says that it drains", lambda: [each for each in admin if draining(each)])
        outcomes = [each.result() for each in long]
        until(READY_SECONDS, "other pods", lambda: not set(names) & {pod["metadata"]["name"] for pod in installed.pods(served)})
        settled(installed, served)
    say(f"{how}: {len(outcomes)} streams of {min(seconds for _, seconds in outcomes):.1f} s and more ended whole, "
        f"{len(told.asked)} short requests beside them, {len(seen)} pods seen draining")  # fmt: skip
    assert min(seconds for _, seconds in outcomes) >= STREAM_SECONDS * 0.9
    assert [each.failed for each in told.asked if each.failed] == []


def end(installed: Installed, namespace: str, names: Sequence[str], how: str) -> None:
    if how == "rollout":
        installed.kubectl("rollout", "restart", "-n", namespace, f"deployment/{APP}")
    else:
        # One after the other, as an administrator would drain nodes: the Service always has a pod.
        installed.kubectl("delete", "pod", names[0], "-n", namespace, "--wait=false")
        until(READY_SECONDS, "a successor", lambda: sum(map(ready, staying(installed, namespace))) == 2)
        installed.kubectl("delete", "pod", names[1], "-n", namespace, "--wait=false")


def staying(installed: Installed, namespace: str) -> list[dict[str, Any]]:
    return [pod for pod in installed.pods(namespace) if "deletionTimestamp" not in pod["metadata"]]


def draining(url: str) -> bool:
    try:
        return bool(status_of(url)["draining"])
    except (OSError, http.client.HTTPException, ValueError):
        return False  # it ends amid the answer
