"""Every golden pod goes by the real API server and webhook: what becomes of it is what `inject` says, and nothing else is touched."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError

import pytest
from tests.cluster.control_plane import ControlPlane, fresh_namespace
from tests.cluster.webhook_processes import Installed, installed
from tests.operator.goldens import Golden, goldens

from inference_cache_contract.pod import API_VERSION, CACHE_ANNOTATION, PLURAL, SIDECAR_CONTAINER
from inference_cache_operator.injection.fetching import CONTAINER
from inference_cache_operator.injection.inject import Injected, Refused
from inference_cache_operator.injection.undo import UNDO_ANNOTATION

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture(scope="module")
def install(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with (
        fresh_namespace(control_plane.api, "goldens") as namespace,
        installed(control_plane, namespace, tmp_path_factory.mktemp("goldens")) as ready,
    ):
        yield ready


@pytest.mark.parametrize("golden", [pytest.param(each, id=each.name) for each in goldens()])
def test_a_golden_pod_by_the_api_server(install: Installed, golden: Golden) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", **golden.pod}
    pod["metadata"] = {**pod["metadata"], "namespace": install.namespace, "labels": {**pod["metadata"].get("labels", {}), "app": "vllm"}}
    without = admitted(install, pod)
    outcome = golden.outcome
    with resource_of(install, golden) as taken:
        injected = admitted(install, pod)
    if not isinstance(outcome, Injected):
        fetches = isinstance(outcome, Refused) and outcome.has_artifacts
        assert (injected != without) is fetches
        return
    assert taken
    started = [each["name"] for each in injected["spec"]["initContainers"]]
    assert [each for each in started if each.startswith(CONTAINER)] == [f"{CONTAINER}{n}" for n in range(len(golden.resource.artifacts))]
    assert [each["name"] for each in injected["spec"]["initContainers"]].count(SIDECAR_CONTAINER) == 1
    assert injected["metadata"]["annotations"][CACHE_ANNOTATION] == "faq-bot"
    assert UNDO_ANNOTATION in injected["metadata"]["annotations"]
    assert commands(injected) == commands(outcome.pod)


@contextmanager
def resource_of(install: Installed, golden: Golden) -> Iterator[bool]:
    """Whether the API server takes it: what injection refuses of a resource, the definition may refuse before."""
    resources = f"/apis/{API_VERSION}/namespaces/{install.namespace}/{PLURAL}"
    body = {"apiVersion": API_VERSION, "kind": "InferenceCache", "metadata": {"name": "faq-bot"}, "spec": dict(golden.resource.spec)}
    try:
        install.plane.api.request("POST", resources, body)
    except HTTPError as error:
        error.close()
        yield False
        return
    try:
        yield True
    finally:
        install.plane.api.request("DELETE", f"{resources}/faq-bot")


def commands(pod: dict[str, Any]) -> dict[str, tuple[list[str], list[str]]]:
    return {each["name"]: (each.get("command") or [], each.get("args") or []) for each in pod["spec"]["containers"]}


def admitted(install: Installed, pod: dict[str, Any]) -> dict[str, Any]:
    """As a dry run, without what is unlike each time."""
    try:
        answer = install.create_pod(pod, dry_run=True)
    except HTTPError as error:
        with error:
            pytest.fail(json.load(error)["message"])
    shown = json.dumps({"metadata": {name: answer["metadata"].get(name) for name in ("labels", "annotations")}, "spec": answer["spec"]})
    return dict(json.loads(re.sub(r"kube-api-access-[a-z0-9]{5}", "kube-api-access", shown)))
