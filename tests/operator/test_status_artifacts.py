"""ArtifactsReady, from what kubelet says of the containers that fetch."""

import json
import re
from typing import Any

import pytest
from tests.operator.crd_fields import fields
from tests.operator.test_controller_status import seen

from inference_cache_contract.pod import CACHE_ANNOTATION, VERSION_ANNOTATION
from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.prefetch.nodes import OnNode
from inference_cache_operator.prefetch.outcome import Found, Prefetched, artifacts_status
from inference_cache_operator.resource import Resource
from inference_cache_operator.status import status_of
from inference_cache_operator.status_artifacts import artifacts_condition
from inference_cache_operator.versions.state import State
from inference_cache_operator.versions.step import Decision

ARTIFACTS = [{"source": "s3://models/faq/v2/", "mountPath": "/models"}]
CORRUPT = json.dumps({"reason": "Corrupt", "file": "model.safetensors", "message": "model.safetensors: its SHA-256 is another"})
DONE = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
RUNNING = {"state": {"running": {}}}
WAITING = {"state": {"waiting": {"reason": "PodInitializing"}}}


def failed(message: str, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": 1, "reason": reason, "message": message}}


def cache(artifacts: list[dict[str, Any]] | None = None) -> Resource:
    model = {"version": "v2", "artifacts": ARTIFACTS if artifacts is None else artifacts}
    return Resource("llm", "faq", "uid", "2026-01-01T00:00:00Z", 1, {"model": model})


def pod(*containers: dict[str, Any] | None, version: str | None = "v2", ready: bool = False, ending: bool = False, name: str = "a") -> Pod:
    """With so many containers that fetch; kubelet says nothing of those that are None."""
    annotations = {} if version is None else {CACHE_ANNOTATION: "faq", VERSION_ANNOTATION: version}
    metadata = {"namespace": "llm", "name": name, "uid": name, "annotations": annotations}
    spec = {"initContainers": [*({"name": f"inference-cache-fetch-{n}"} for n in range(len(containers))), {"name": "inference-cache"}]}
    statuses = [{"name": f"inference-cache-fetch-{n}", **each} for n, each in enumerate(containers) if each is not None]
    status = {"conditions": [{"type": "Ready", "status": str(ready)}], "initContainerStatuses": statuses}
    return read_pod(
        {"metadata": {**metadata, **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if ending else {})}, "spec": spec, "status": status}
    )


@pytest.mark.parametrize(
    ("pods", "status", "reason"),
    [
        pytest.param([], "True", "NoPods", id="no-pods"),
        pytest.param([pod(DONE, DONE), pod(DONE)], "True", "Ready", id="all-done"),
        pytest.param([pod(None, ready=True)], "True", "Ready", id="ready-whatever-kubelet-says"),
        pytest.param([pod(DONE), pod(RUNNING)], "False", "Fetching", id="one-runs"),
        pytest.param([pod(DONE, WAITING)], "False", "Fetching", id="the-second-artifact-waits"),
        pytest.param([pod(None)], "False", "Fetching", id="nothing-said-yet"),
        pytest.param([pod(DONE, version="v1", ready=True)], "False", "Waiting", id="only-the-old-version"),
        pytest.param([pod(DONE, version="v1", ready=True), pod(DONE)], "True", "Ready", id="the-old-version-does-not-count"),
        pytest.param([pod(RUNNING, ending=True), pod(DONE)], "True", "Ready", id="an-ending-pod-does-not-count"),
        pytest.param([pod(DONE, version=None)], "True", "Ready", id="without-sidecar"),
        pytest.param([pod({"state": failed(CORRUPT)})], "False", "Corrupt", id="failed"),
        pytest.param(
            [pod({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": failed(CORRUPT)})], "False", "Corrupt", id="backs-off"
        ),
        pytest.param([pod({**RUNNING, "lastState": failed(CORRUPT)})], "False", "Corrupt", id="is-tried-again"),
        pytest.param([pod({**DONE, "lastState": failed(CORRUPT)})], "True", "Ready", id="was-right-in-the-end"),
        pytest.param([pod(RUNNING), pod({"state": failed(CORRUPT)})], "False", "Corrupt", id="one-of-two-failed"),
        pytest.param([pod({"state": failed("", "OOMKilled")})], "False", "OOMKilled", id="killed"),
        pytest.param([pod({"state": failed("Traceback")})], "False", "FetchFailed", id="says-something-else"),
        pytest.param([pod({"state": failed('{"reason": "not a word"}')})], "False", "FetchFailed", id="says-no-word"),
        pytest.param([pod({"state": failed("[1]")})], "False", "FetchFailed", id="says-a-list"),
        pytest.param([pod({"state": {"waiting": {"reason": "ErrImagePull"}}})], "False", "ImagePullFailed", id="no-image"),
        pytest.param(
            [pod({"state": {"waiting": {"reason": "CreateContainerConfigError"}}})], "False", "CreateContainerConfigError", id="not-made"
        ),
    ],
)
def test_the_condition_says_how_far_the_pods_are(pods: list[Pod], status: str, reason: str) -> None:
    condition = artifacts_condition(cache(), pods, Prefetched())
    assert (condition.status, condition.reason) == (status, reason)
    properties = fields("status")
    assert re.fullmatch(properties["status.conditions[].reason"]["pattern"], condition.reason)


def test_it_says_how_many_pods_have_their_files() -> None:
    assert artifacts_condition(cache(), [pod(DONE), pod(RUNNING), pod(None)], Prefetched()).message.endswith("1 of 3 pods have their files")


def test_it_says_which_file_of_which_pod_and_why() -> None:
    condition = artifacts_condition(cache(), [pod(DONE), pod({"state": failed(CORRUPT)}, name="b")], Prefetched())
    assert condition.message == "version 'v2': pod b: model.safetensors: its SHA-256 is another"
    unnamed = json.dumps({"reason": "Missing", "file": "a.json", "message": "there is none"})
    assert artifacts_condition(cache(), [pod({"state": failed(unnamed)})], Prefetched()).message.endswith("a.json: there is none")


def test_what_a_container_says_is_bounded_and_of_one_line() -> None:
    message = artifacts_condition(cache(), [pod({"state": failed("x\n\x00" * 10_000)})], Prefetched()).message
    assert len(message) < 600
    assert message.isprintable()


def test_without_artifacts_there_is_nothing_to_wait_for() -> None:
    assert artifacts_condition(cache([]), [pod()], Prefetched()).reason == "NoArtifacts"


READY, FETCHING = OnNode("n1", "Ready"), OnNode("n2", "Fetching", pod="q")
WITHOUT_SECRET = OnNode("n4", "Waiting", pod="r")
ON_CLAIM = Found("Claim")
WITHOUT_ROOM = OnNode("n3", "Waiting", "", "pod p: 0/3 nodes are available")
HALF = "version 'v2' is on 1 of 2 nodes"
BROKEN = OnNode("n2", "Failed", "Corrupt", "model.safetensors: its SHA-256 is another")


@pytest.mark.parametrize(
    ("prefetched", "reason", "message"),
    [
        pytest.param(Prefetched(preloaded=False), "Preloading", "version 'v2' is not there yet", id="nothing-known"),
        pytest.param(
            Prefetched(preloaded=False, nodes=[READY, FETCHING]),
            "Preloading",
            f"{HALF}; node n2: Fetching, pod q: see its log",
            id="under-way",
        ),
        pytest.param(
            Prefetched(preloaded=False, nodes=[WITHOUT_SECRET, READY]),
            "Preloading",
            f"{HALF}; node n4: Waiting, pod r: see its events",
            id="nobody-says-why-it-does-not-start",
        ),
        pytest.param(
            Prefetched(preloaded=False, nodes=[READY, OnNode("n5", "Waiting")]), "Preloading", f"{HALF}; node n5: Waiting", id="no-pod"
        ),
        pytest.param(
            Prefetched(preloaded=False, nodes=[FETCHING], found=ON_CLAIM),
            "Preloading",
            "version 'v2' is not on the claim yet; Fetching, pod q: see its log",
            id="a-claim",
        ),
        pytest.param(
            Prefetched(preloaded=False, nodes=[READY, FETCHING, WITHOUT_ROOM]),
            "Preloading",
            "version 'v2' is on 1 of 3 nodes; node n3: Waiting, pod p: 0/3 nodes are available",
            id="without-room",
        ),
        pytest.param(
            Prefetched(preloaded=False, nodes=[READY, BROKEN], problem=BROKEN),
            "Corrupt",
            "version 'v2': node n2: model.safetensors: its SHA-256 is another; pods of the version before go on",
            id="corrupt",
        ),
        pytest.param(
            Prefetched(preloaded=False, problem=OnNode("", "Failed", "ManifestTooLarge", "too long")),
            "ManifestTooLarge",
            "version 'v2': too long; pods of the version before go on",
            id="of-no-node",
        ),
    ],
)
def test_while_files_are_fetched_ahead_it_is_not_ready(prefetched: Prefetched, reason: str, message: str) -> None:
    condition = artifacts_condition(cache(), [pod(DONE)], prefetched)
    assert (condition.status, condition.reason, condition.message) == ("False", reason, message)


def test_while_files_are_fetched_ahead_no_pod_is_said_to_go() -> None:
    preloading = Decision(State("Preloading", active="v1", updating="v2"), (), may_roll=False, waiting_for_sidecar=False, said=())
    observed = seen(resource=cache(), decision=preloading, prefetched=Prefetched(preloaded=False, nodes=[FETCHING]))
    (rollout,) = [each for each in status_of(observed, 0.0)["conditions"] if each["type"] == "RolloutComplete"]
    assert (rollout["reason"], rollout["message"]) == ("Preloading", "version 'v2'; no pod is replaced before the files are there")


def test_the_status_tells_of_twenty_nodes_at_most_and_of_failed_ones_first() -> None:
    nodes = [OnNode(f"n{number:02}", "Fetching" if number % 2 else "Ready") for number in range(50)] + [
        OnNode("z", "Failed", "Corrupt", "m")
    ]
    figures = {"n01": {"bytes": 5, "totalBytes": 10}}
    status = artifacts_status(Prefetched(preloaded=False, nodes=nodes, found=Found("Agent", "no hostPath"), figures=figures))
    assert status is not None
    assert (status["delivery"], status["message"], status["nodes"]) == ("Agent", "no hostPath", {"wanted": 51, "ready": 25})
    assert len(status["progress"]) == 20
    assert status["progress"][:2] == [
        {"node": "z", "state": "Failed", "reason": "Corrupt", "message": "m"},
        {"node": "n01", "state": "Fetching", "bytes": 5, "totalBytes": 10},
    ]
    assert set(status["progress"][1]) <= {name.rpartition(".")[2] for name in fields("status")}


def test_when_nothing_is_fetched_ahead_only_the_delivery_is_told() -> None:
    assert artifacts_status(Prefetched(found=Found("HostPath"))) == {"delivery": "HostPath"}
    assert artifacts_status(Prefetched()) is None
