"""The real vLLM on a node, once: injected, hits, and a new version whose answers are its own."""

import sys
import time
from pathlib import Path

import pytest
from tests.cluster import real_vllm
from tests.cluster.answers import Door, door
from tests.cluster.installing import install, loaded
from tests.cluster.node import Node
from tests.cluster.shared_store import SPEC, shared_store
from tests.cluster.story import cache, condition, ready, service, until
from tests.images import building

pytestmark = [pytest.mark.services, pytest.mark.slow]
START_SECONDS = 480.0
KNOWN = "How do I reset my password?"
REWORDED = "How can I reset my password?"
SHORT = {"max_tokens": 8}


def test_a_new_model_of_the_real_vllm_answers_for_itself(own_node: Node, helm: Path, tmp_path: Path) -> None:
    installed, namespace = install(own_node, helm, loaded(own_node)), "real-vllm"
    python, image = real_vllm.python(), building.plain()
    own_node.load(image.archive)
    own_node.kubectl("create", "namespace", namespace)
    store = shared_store(installed, own_node.load, namespace)

    def roll(version: str, seed: int) -> Door:
        """Until the pod of that version is the only one."""
        begun = time.monotonic()
        # A model that knows nothing never ends by itself.
        resource = cache(version, store=SPEC, answers={"length": "All"})
        template = {"inferencecache.io/version": version}
        made = real_vllm.deployment(image.reference, python, real_vllm.tiny_model(python, seed), template)
        installed.apply(resource, made, service(), namespace=namespace)
        pod = until(START_SECONDS, f"{version} is served", lambda: alone(version))
        sys.stdout.write(f"{version} is served after {time.monotonic() - begun:.0f} s\n")
        return door(installed, namespace, pod)

    def alone(version: str) -> str | None:
        status, pods = installed.status(namespace), installed.pods(namespace)
        if len(pods) != 1 or not ready(pods[0]) or status.get("activeVersion") != version:
            return None
        metadata = pods[0]["metadata"]
        fine = condition(status, "Ready").get("status") == "True" and metadata["annotations"]["inferencecache.io/version"] == version
        return str(metadata["name"]) if fine else None

    one = roll("v1", 0)
    answer = until(60, "v1 knows it", lambda: (told := one.ask(KNOWN, **SHORT)).stored and told)
    again, reworded = one.ask(KNOWN, **SHORT), until(60, "it is found in other words", lambda: _found(one.ask(REWORDED, **SHORT)))
    assert (again.text, reworded.text) == (answer.text, answer.text)
    assert 'detail="exact"' in again.how
    assert "semantic" in reworded.how

    two = roll("v2", 1)
    first = two.looked_up(KNOWN, **SHORT)
    assert not first.hit
    assert first.text != answer.text
    assert two.ask(KNOWN, **SHORT).text == first.text
    until(60, "v1 is flushed", lambda: not store.entries("v1"))
    store.client.close()
    own_node.kubectl("delete", "namespace", namespace, "--wait=false")


def _found(told: object) -> object:
    return told if getattr(told, "hit", False) else None
