"""The resource on a real API server, applied as people and GitOps tools do."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tests.cluster.control_plane import ControlPlane
from tests.cluster.crd import EXAMPLES, NAME, ask, install, path, resource, try_out
from tests.cluster.errors import CommandFailed
from tests.cluster.servers import until

from inference_cache_contract.spec import SPEC, Spec, parse_spec
from inference_cache_contract.spec_fields import Member, Section

pytestmark = pytest.mark.services
SAMPLES: Final = [pytest.param(each, id=each.stem) for each in sorted(EXAMPLES.glob("*.yaml"))]
MINIMAL: Final = EXAMPLES / "minimal.yaml"
SECTIONS_OF_THE_OPERATOR: Final = ("rollout", "interception", "prefixCaching")
PRESENT_IF_WRITTEN: Final = ("redisStream", "pubsub", "kafka")


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    install(control_plane)
    return control_plane


def empty_sections(parts: tuple[Member, ...]) -> dict[str, Any]:
    """Every section there is, with nothing in it."""
    return {part.name: empty_sections(part.members) for part in parts if isinstance(part, Section) and part.name not in PRESENT_IF_WRITTEN}


def test_the_definition_is_established_and_structural(plane: ControlPlane) -> None:
    definition = plane.api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{NAME}")
    conditions = {each["type"]: each["status"] for each in definition["status"]["conditions"]}
    assert conditions == {"Established": "True", "NamesAccepted": "True"}


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_applies_whole(plane: ControlPlane, namespace: str, sample: Path) -> None:
    said = plane.kubectl("apply", "--dry-run=server", "-n", namespace, "-f", sample)
    assert {"inferencecache.inferencecache.io/faq-bot", "deployment.apps/vllm", "service/faq-bot"} <= {
        line.split()[0] for line in said.splitlines()
    }


def test_sections_are_filled_with_the_sidecars_defaults(plane: ControlPlane) -> None:
    spec = {"selector": {"matchLabels": {"app": "vllm"}}, **empty_sections(SPEC.members)}
    filled = try_out(plane.api, spec)["spec"]
    assert parse_spec(filled) == Spec()
    assert filled["semantic"]["threshold"] == Spec().semantic.threshold


def test_a_section_that_is_not_written_is_not_made_up(plane: ControlPlane) -> None:
    spec = {"selector": {"matchLabels": {"app": "vllm"}}}
    assert try_out(plane.api, spec)["spec"] == {**spec, "mode": "Enabled"}


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_spec_means_the_same_once_its_defaults_are_filled_in(plane: ControlPlane, sample: Path) -> None:
    spec = next(yaml.safe_load_all(sample.read_text()))["spec"]
    assert parse_spec(try_out(plane.api, spec)["spec"]) == parse_spec(spec)


@pytest.mark.parametrize("word", ["Off", '"Off"', "off"])
def test_kubectl_takes_off_with_and_without_quotes(plane: ControlPlane, namespace: str, word: str) -> None:
    spec = f"{{selector: {{matchLabels: {{app: vllm}}}}, semantic: {{mode: {word}, calibration: {{judge: {word}}}}}}}"
    document = f"{{apiVersion: inferencecache.io/v1alpha1, kind: InferenceCache, metadata: {{name: faq-bot}}, spec: {spec}}}"
    for _ in range(2):
        plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=document)
    stored = plane.api.get(path(namespace, "faq-bot"))
    assert parse_spec(stored["spec"]).semantic.mode == "Off"
    assert stored["metadata"]["generation"] == 1


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("flags", [pytest.param(["--server-side"], id="server-side"), pytest.param([], id="client-side")])
def test_applying_the_same_again_changes_nothing(plane: ControlPlane, namespace: str, sample: Path, flags: list[str]) -> None:
    plane.kubectl("apply", *flags, "-n", namespace, "-f", sample)
    before = plane.api.get(path(namespace, "faq-bot"))
    for _ in range(3):
        plane.kubectl("apply", *flags, "-n", namespace, "-f", sample)
    assert plane.api.get(path(namespace, "faq-bot"))["metadata"] == before["metadata"]
    # The status of the sample's Deployment may be written amid it.
    until(lambda: would_change(plane, namespace, sample, flags) == "", "no difference", 60)


def would_change(plane: ControlPlane, namespace: str, sample: Path, flags: list[str]) -> str:
    try:
        return plane.kubectl("diff", *flags, "-n", namespace, "-f", sample)
    except CommandFailed as error:
        return str(error) or "failed"


def test_what_is_taken_out_of_a_spec_is_its_default_again(plane: ControlPlane, namespace: str) -> None:
    url = f"{path(namespace, 'faq-bot')}?fieldManager=gitops"
    endpoints = {"semantic": {"threshold": 0.97, "endpoints": ["chat"]}}
    for given in ({"semantic": {}}, endpoints, {"semantic": {}}):
        spec = {"selector": {"matchLabels": {"app": "vllm"}}, **given}
        stored = ask(plane.api, "PATCH", url, resource(spec), "application/apply-patch+yaml")
        wanted = parse_spec({**given}).semantic
        assert parse_spec(stored["spec"]).semantic == wanted


def test_the_status_is_written_apart_and_shown_in_columns(plane: ControlPlane, namespace: str) -> None:
    plane.kubectl("apply", "-n", namespace, "-f", MINIMAL)
    ask(
        plane.api,
        "PATCH",
        f"{path(namespace, 'faq-bot')}/status?fieldManager=controller&fieldValidation=Strict",
        {**resource({}), "spec": None, "status": STATUS} | {"metadata": {"name": "faq-bot"}},
        "application/apply-patch+yaml",
    )
    stored = plane.api.get(path(namespace, "faq-bot"))
    assert stored["status"] == STATUS
    assert stored["metadata"]["generation"] == 1
    header, row = plane.kubectl("get", "ic", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "READY", "VERSION", "UPDATING", "PODS", "AGE"]
    assert row.split()[:5] == ["faq-bot", "False", "v1", "v2", "3"]
    header, row = plane.kubectl("get", "ic", "-n", namespace, "-o", "wide").splitlines()
    assert (header.split()[-2:], row.split()[-2:]) == (["REASON", "STORE"], ["Updating", "NoAddress"])
    for category in ("all", "inference"):
        assert "inferencecache.inferencecache.io/faq-bot" in plane.kubectl("get", category, "-n", namespace, "-o", "name").split()


TIME: Final = "2026-01-02T03:04:05Z"
STATUS: Final[dict[str, Any]] = {
    "observedGeneration": 1,
    "phase": "Updating",
    "activeVersion": "v1",
    "updatingVersion": "v2",
    "pods": {"selected": 4, "injected": 3, "ready": 3, "missing": 0, "outdated": 2, "refused": 1},
    "sidecars": {"configured": 3},
    "artifacts": {
        "delivery": "HostPath",
        "message": "…",
        "nodes": {"wanted": 2, "ready": 0},
        "progress": [
            {"node": "a", "state": "Failed", "reason": "Corrupt", "message": "…"},
            {
                "node": "b",
                "state": "Fetching",
                "bytes": 1 << 40,
                "totalBytes": 1 << 41,
                "files": 1,
                "totalFiles": 9,
                "bytesPerSecond": 1 << 33,
                "etaSeconds": 7,
            },
        ],
    },
    "conditions": [
        {"type": "Ready", "status": "False", "reason": "Updating", "message": "…", "lastTransitionTime": TIME, "observedGeneration": 1},
        {
            "type": "Reconciling",
            "status": "True",
            "reason": "Updating",
            "message": "…",
            "lastTransitionTime": TIME,
            "observedGeneration": 1,
        },
        {
            "type": "StoreHealthy",
            "status": "False",
            "reason": "NoAddress",
            "message": "…",
            "lastTransitionTime": TIME,
            "observedGeneration": 1,
        },
    ],
    "flushes": [{"id": "all-1", "target": "all", "value": "", "time": TIME}, {"id": "version-v0", "target": "version", "value": "v0"}],
    "flushedVersions": [{"version": "v0", "keys": 12, "time": TIME}],
    "lastFlushRequest": "2026-01-02",
    "rollout": {"startedAt": TIME, "drainedAt": TIME},
}


def test_kubectl_explains_the_fields(plane: ControlPlane) -> None:
    def explained(field: str, text: str) -> bool:
        return text in plane.kubectl("explain", field, check=False)

    # The API server makes its description of a new definition in the background.
    semantic = "Least cosine similarity of two prompts that may share an answer"
    until(lambda: explained("inferencecache.spec.semantic.threshold", semantic), "the threshold", 60)
    until(lambda: explained("ic.spec", "Which pods of this namespace get the cache"), "the spec", 60)


@pytest.mark.parametrize("annotations", [pytest.param({}, id="empty"), pytest.param(None, id="null")])
def test_annotations_written_as_nothing_change_nothing(plane: ControlPlane, namespace: str, annotations: Any) -> None:
    url = f"{path(namespace, 'faq-bot')}?fieldManager=gitops"
    bare = resource({"selector": {"matchLabels": {"app": "vllm"}}, "semantic": {}})
    with_none = {**bare, "metadata": {**bare["metadata"], "annotations": annotations}}
    first = ask(plane.api, "PATCH", url, bare, "application/apply-patch+yaml")
    for _ in range(3):
        again = ask(plane.api, "PATCH", url, with_none, "application/apply-patch+yaml")
        # The API server takes an empty map for a change, each time, though not of the spec.
        assert again["metadata"]["generation"] == first["metadata"]["generation"]
        assert again["spec"] == first["spec"]
