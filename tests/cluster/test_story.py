"""What the README promises, on a cluster and seen from outside: install, one resource, hits, a version bump, a rollback, uninstall.

`make e2e` runs this file. The traffic never stops, and no question of it may fail.
"""

import itertools
import json
import logging
import urllib.request
from pathlib import Path

import pytest
from tests.cluster.clusters import ForeignCluster
from tests.cluster.history import now
from tests.cluster.installing import Installed, install, left_behind, loaded
from tests.cluster.node import Node
from tests.cluster.story import Question, Served, cache, condition, deployment, questions, ready, service, traffic, until

pytestmark = [pytest.mark.services, pytest.mark.slow]
PATIENCE_SECONDS = 240.0
_log = logging.getLogger("story")


@pytest.fixture(scope="module")
def installed(node: Node | ForeignCluster, helm: Path) -> Installed:
    return install(node, helm, loaded(node))


def ask(url: str, question: str) -> tuple[str, str]:
    """The answer and its Cache-Status."""
    body = json.dumps({"model": "acme", "messages": [{"role": "user", "content": question}]}).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["choices"][0]["message"]["content"], answer.headers.get("Cache-Status", "")


def rephrased_is_answered(url: str, account: int) -> bool:
    """Not yet while the embedding model is being loaded, when questions are known by their words alone."""
    first, _ = ask(url, f"How do I reset the password of account {account}?")
    reworded, how = ask(url, f"How can I reset the password of account {account}?")
    assert (reworded == first) == ("hit" in how)
    return "semantic" in how


def served(cluster: Installed, namespace: str, version: str) -> None:
    """Until `version` is what is served, and the version before is flushed."""

    def stable() -> bool:
        status = cluster.status(namespace)
        return status.get("activeVersion") == version and condition(status, "Ready").get("status") == "True"

    until(PATIENCE_SECONDS, f"{version} is served", stable)


def test_install_hits_bump_rollback_uninstall(installed: Installed, node_namespace: str) -> None:
    namespace = node_namespace
    v1, v2 = (Served(version, annotations={"inferencecache.io/version": version}) for version in ("v1", "v2"))
    image = installed.image

    _log.info("the chart is installed; one apply: resource, Deployment and Service")
    # One apply, as a user would: the resource, the Deployment, the Service.
    installed.apply(cache("v1"), deployment(image, v1), service(), namespace=namespace)
    pods = until(
        PATIENCE_SECONDS, "two pods are Ready", lambda: (p := installed.pods(namespace)) and len(p) == 2 and all(map(ready, p)) and p
    )
    assert all("inferencecache.io/cache" in pod["metadata"]["annotations"] for pod in pods)
    served(installed, namespace, "v1")
    assert installed.kubectl("get", "-n", namespace, "inferencecaches").splitlines()[1].split()[:3] == ["acme", "True", "v1"]

    url = installed.forward(namespace, f"pod/{pods[0]['metadata']['name']}", 8000)
    # What comes before the sidecar knows the model is passed on, and not kept.
    first = until(30, "an answer is kept", lambda: (told := ask(url, "How do I reset my password?"))[1].count("; stored") and told[0])
    assert first.startswith(v1.root)
    again, how = ask(url, "How do I reset my password?")
    assert again == first
    assert "; hit" in how
    accounts = itertools.count()
    until(60, "a rephrased question is answered", lambda: rephrased_is_answered(url, next(accounts)))
    _log.info("equal and rephrased questions are answered from the cache; now traffic all the time")

    installed.apply(traffic(image), namespace=namespace)
    until(PATIENCE_SECONDS, "the traffic has hits", lambda: any(each.hit for each in questions(installed, namespace)))
    for wanted in (v2, v1):
        _log.info("the version becomes %s", wanted.version)
        installed.apply(cache(wanted.version), deployment(image, wanted), namespace=namespace)
        served(installed, namespace, wanted.version)
        assert {each.by for each in hits_from_now_on(installed, namespace)} == {wanted.root}

    # The Git-like rollback was a version change too: what it left behind is flushed.
    flushed = until(60, "v2 is flushed", lambda: [each["version"] for each in installed.status(namespace).get("flushedVersions") or ()])
    assert "v2" in flushed

    _log.info("uninstalling")
    installed.uninstall()
    until(60, "nothing is left", lambda: not left_behind(installed))
    so_far = len(questions(installed, namespace))
    until(60, "it still serves", lambda: len(questions(installed, namespace)) > so_far + 20)
    told = questions(installed, namespace)
    assert [each.failed for each in told if each.failed] == []
    assert [each for each in told if each.of_another_model] == []
    _log.info("%d questions, %d hits, none failed, none answered by another model", len(told), sum(each.hit for each in told))


def hits_from_now_on(installed: Installed, namespace: str) -> list[Question]:
    """The first ones of questions that are yet to be asked: what is logged from now on may be older."""
    begun = now()
    return list(until(60, "hits", lambda: [each for each in questions(installed, namespace) if each.at > begun and each.hit]))
