"""A sidecar's image that cannot be pulled keeps back only the pods that have it; later ones start without, and all is repaired."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.installing import Installed, install, loaded
from tests.cluster.node import Node
from tests.cluster.story import Served, cache, condition, deployment, ready, until
from tests.cluster.surroundings import a_namespace, say

from inference_cache_contract.pod import CACHE_ANNOTATION

pytestmark = [pytest.mark.services, pytest.mark.slow]
READY_SECONDS = 180.0
ABSENT = "inference-cache.test/absent:1"


@pytest.fixture(scope="module")
def installed(own_node: Node, helm: Path) -> Installed:
    return install(own_node, helm, loaded(own_node))


def with_image(image: str | None) -> dict[str, Any]:
    body = cache("v1")
    if image is not None:
        body["spec"]["sidecar"]["image"] = image
    return body


def injected(pod: Mapping[str, Any]) -> bool:
    return CACHE_ANNOTATION in pod["metadata"].get("annotations", {})


def test_pods_start_without_a_sidecar_whose_image_cannot_be_pulled(installed: Installed) -> None:
    with a_namespace(installed) as namespace:
        installed.apply(with_image(ABSENT), deployment(installed.image, Served("v1", replicas=1)), namespace=namespace)
        begun = time.monotonic()
        stalled = until(READY_SECONDS, "it is said", lambda: is_stalled(installed, namespace))
        say(f"after {time.monotonic() - begun:.1f} s: {stalled}")
        (waiting,) = installed.pods(namespace)
        assert injected(waiting)
        assert not ready(waiting)

        installed.kubectl("scale", "-n", namespace, "deployment/vllm", "--replicas=3")
        later = until(READY_SECONDS, "later pods are Ready", lambda: later_ones(installed, namespace, waiting))
        assert not any(map(injected, later))
        until(60, "it is still said", lambda: is_stalled(installed, namespace))

        begun = time.monotonic()
        installed.apply(with_image(None), namespace=namespace)
        until(READY_SECONDS, "all is repaired", lambda: repaired(installed, namespace))
        say(f"all was repaired {time.monotonic() - begun:.1f} s after the image was corrected")
        until(60, "the cache is Ready", lambda: condition(installed.status(namespace), "Ready").get("status") == "True")
        until(60, "nothing is wrong any more", lambda: not is_stalled(installed, namespace))


def is_stalled(installed: Installed, namespace: str) -> str:
    stalled = condition(installed.status(namespace), "Stalled")
    return str(stalled["message"]) if stalled.get("status") == "True" and stalled["reason"] == "ImagePullFailed" else ""


def later_ones(installed: Installed, namespace: str, waiting: Mapping[str, Any]) -> list[dict[str, Any]]:
    others = [pod for pod in installed.pods(namespace) if pod["metadata"]["uid"] != waiting["metadata"]["uid"]]
    return others if len(others) == 2 and all(map(ready, others)) else []


def repaired(installed: Installed, namespace: str) -> bool:
    pods = installed.pods(namespace)
    return len(pods) == 3 and all(map(ready, pods)) and all(map(injected, pods))
