"""Artifacts in pods beyond the golden ones: which version's a pod gets, what names them, and what is denied."""

import copy
from typing import Any

import pytest
from tests.operator.goldens import DEFAULTS, TOKEN, goldens, resource

from inference_cache_artifacts.command import _check_together, request_of
from inference_cache_artifacts.flags import fetch_parser
from inference_cache_artifacts.manifest import read_manifest
from inference_cache_artifacts.request import Request
from inference_cache_contract import pod as names
from inference_cache_operator.injection.delivery import STORE_VOLUME
from inference_cache_operator.injection.fetching import is_fetching
from inference_cache_operator.injection.inject import Injected, Refused, SidecarDefaults, Unchanged, inject, injection_digest, stripped
from inference_cache_operator.injection.naming import asked_part
from inference_cache_operator.injection.resources import is_guaranteed
from inference_cache_operator.resource import Resource
from inference_cache_operator.webhook.deciding import Asked, Asker, Deny, Warn, decide

Pod = dict[str, Any]
OLD = {"source": "s3://models/faq/v1/", "mountPath": "/models"}
NEW = {"source": "s3://models/faq/v2/", "mountPath": "/models"}
SHA256 = "0" * 64


def pod(**annotations: str) -> Pod:
    plain = copy.deepcopy(next(golden.pod for golden in goldens() if golden.name == "plain"))
    return {**plain, "metadata": {**plain["metadata"], **({"annotations": annotations} if annotations else {})}}


def pinned(version: str) -> Pod:
    return pod(**{names.VERSION_ANNOTATION: version})


def cache(*artifacts: dict[str, Any], version: str = "v2", status: dict[str, Any] | None = None, **model: Any) -> Resource:
    return resource({"model": {"version": version, "artifacts": list(artifacts), **model}}, status=status or {})


def changing(phase: str, *artifacts: dict[str, Any]) -> Resource:
    """From v1, which has OLD, to v2."""
    status = {"phase": phase, "activeVersion": "v1", "activeArtifacts": [OLD]}
    return cache(*(artifacts or (NEW,)), status=status)


def fetched(outcome: object) -> list[tuple[str, str]]:
    """Sources, and where vLLM finds them."""
    assert isinstance(outcome, Injected | Refused)
    assert outcome.pod is not None
    spec = outcome.pod["spec"]
    sources = [each["args"][1] for each in spec["initContainers"] if is_fetching(each)]
    mounts = [
        mount["mountPath"] for each in spec["containers"] for mount in each.get("volumeMounts") or () if mount["name"] == STORE_VOLUME
    ]
    return list(zip(sources, mounts, strict=True))


def put(pod: Pod, by: Resource) -> Any:
    return inject(pod, by, DEFAULTS, TOKEN)


def digest(by: Resource) -> str:
    return asked_part(injection_digest(by, DEFAULTS))


@pytest.mark.parametrize(
    ("asked", "phase", "source"),
    [
        pytest.param(pod(), "Stable", "s3://models/faq/v1/", id="before-the-controller-has-looked"),
        pytest.param(pod(), "Preloading", "s3://models/faq/v1/", id="while-it-is-preloaded"),
        pytest.param(pod(), "Updating", "s3://models/faq/v2/", id="while-pods-are-replaced"),
        pytest.param(pinned("v1"), "Updating", "s3://models/faq/v1/", id="the-template-says-the-old-one"),
        pytest.param(pinned("v2"), "Preloading", "s3://models/faq/v2/", id="the-template-says-the-new-one"),
    ],
)
def test_a_pod_gets_the_artifacts_of_its_own_version(asked: Pod, phase: str, source: str) -> None:
    outcome = put(asked, changing(phase))
    assert fetched(outcome) == [(source, "/models")]
    assert isinstance(inject(outcome.pod, changing(phase), DEFAULTS, "another"), Unchanged)


def test_a_version_that_had_no_artifacts_gets_none() -> None:
    assert fetched(put(pinned("v1"), cache(NEW, status={"phase": "Updating", "activeVersion": "v1"}))) == []


def test_a_pinned_version_without_artifacts_is_nobodys_business() -> None:
    assert isinstance(put(pinned("v7"), cache()), Injected)


def test_a_copy_of_a_pod_gets_what_its_resource_has_now() -> None:
    first = put(pod(), cache(OLD, version="v1"))
    second = put(first.pod, cache(NEW))
    assert fetched(second) == [("s3://models/faq/v2/", "/models")]
    assert stripped(second.pod) == pod()
    third = put(second.pod, cache())
    assert fetched(third) == []
    assert stripped(third.pod) == pod()


def test_a_copy_of_a_pod_without_sidecar_is_injected_when_it_can_be() -> None:
    alone = pod()
    alone["spec"]["hostNetwork"] = True
    refused = put(alone, cache(NEW))
    assert isinstance(refused, Refused)
    copied = copy.deepcopy(refused.pod)
    assert copied is not None
    del copied["spec"]["hostNetwork"]
    outcome = put(copied, cache(NEW))
    assert isinstance(outcome, Injected)
    assert fetched(outcome) == [("s3://models/faq/v2/", "/models")]
    assert stripped(outcome.pod) == pod()


@pytest.mark.parametrize(
    ("artifact", "request_"),
    [
        pytest.param(NEW, {}, id="plain"),
        pytest.param({**NEW, "manifest": {}}, {}, id="empty-manifest"),
        pytest.param({**NEW, "manifest": {"sha256": SHA256}}, {"manifest_sha256": SHA256}, id="pinned"),
        pytest.param(
            {**NEW, "manifest": {"files": [{"path": "b", "size": 1, "sha256": SHA256}, {"path": "a", "size": 0, "sha256": SHA256}]}},
            {
                "manifest": read_manifest(
                    {"files": [{"path": "a", "size": 0, "sha256": SHA256}, {"path": "b", "size": 1, "sha256": SHA256}]}
                )
            },
            id="inline",
        ),
        pytest.param({**NEW, "verify": "None"}, {"verify": False}, id="not-verified"),
        pytest.param({"sources": ["s3://models/faq/v2/", "https://cdn/v2"], "mountPath": "/models"}, {}, id="mirrors"),
    ],
)
def test_the_pod_mounts_the_very_tree_that_the_command_makes(artifact: dict[str, Any], request_: dict[str, Any]) -> None:
    sources = tuple(artifact.get("sources") or (artifact["source"],))
    tree = Request(sources=sources, version="v2", **request_).tree_name
    (mount,) = put(pod(), cache(artifact)).pod["spec"]["containers"][0]["volumeMounts"]
    assert mount["subPath"] == f"trees/{tree}/files"


def test_the_command_understands_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    understood = 0
    for golden in goldens():
        pod = getattr(golden.outcome, "pod", None) or {"spec": {}}
        containers = [each for each in pod["spec"].get("initContainers") or () if is_fetching(each)]
        mounts = [each for each in _mounts(pod) if each["name"] == STORE_VOLUME]
        for container, mount in zip(containers, mounts, strict=True):
            command, *arguments = [each.replace("$$", "$") for each in container["args"]]
            for variable in container["env"]:
                monkeypatch.setenv(variable["name"], variable["value"].replace("$$", "$"))
            # The Secret is mounted in the pod only.
            asked = fetch_parser().parse_args([each for each in arguments if not each.startswith("--credentials-dir=")])
            assert command == "fetch"
            assert asked.to is None
            _check_together(fetch_parser(), asked)
            assert mount["subPath"] == f"trees/{request_of(asked).tree_name}/files"
            understood += 1
    assert understood >= 28


def _mounts(pod: Pod) -> list[Pod]:
    return [mount for each in pod["spec"].get("containers") or () for mount in each.get("volumeMounts") or ()]


def test_an_injection_is_named_by_what_is_fetched_where_and_as_whom() -> None:
    found = [
        digest(each)
        for each in (
            cache(),
            cache(NEW),
            cache(OLD),
            cache(NEW, version="v3"),
            cache({**NEW, "mountPath": "/other"}),
            cache({**NEW, "verify": "None"}),
            cache({**NEW, "manifest": {"sha256": SHA256}}),
            cache({**NEW, "credentialsSecretRef": {"name": "s3"}}),
            cache({**NEW, "credentialsSecretRef": {"name": "s3", "key": "token"}}),
            cache(NEW, artifactStorage={"persistentVolumeClaim": {"claimName": "models"}}),
        )
    ]
    assert len(set(found)) == len(found)


def test_while_the_old_version_is_given_to_new_pods_running_ones_are_as_they_should_be() -> None:
    assert digest(changing("Preloading")) == digest(cache(OLD, version="v1"))
    assert digest(changing("Updating")) == digest(cache(NEW))


def test_another_image_is_another_injection_by_the_installation_only() -> None:
    one, other = (injection_digest(cache(NEW), SidecarDefaults(image)) for image in ("a", "b"))
    assert one != other
    assert asked_part(one) == asked_part(other)


def test_trees_and_their_places_are_part_of_the_revision() -> None:
    outcomes = [put(pod(), each) for each in (cache(), cache(NEW), cache(OLD), cache({**NEW, "mountPath": "/other"}))]
    assert len({each.pod["metadata"]["annotations"][names.REVISION_ANNOTATION] for each in outcomes}) == 4


def test_trees_that_others_use_stay_on_a_shared_claim() -> None:
    claim = {"persistentVolumeClaim": {"claimName": "models"}}
    before = put(pod(), cache(OLD, version="v1", artifactStorage=claim))
    status = {"phase": "Updating", "activeVersion": "v1", "activeArtifacts": [OLD]}
    after = put(pod(), cache(NEW, status=status, artifactStorage=claim))
    (old,) = before.pod["spec"]["containers"][0]["volumeMounts"]
    assert f"--keep={old['subPath'].split('/')[1]}" in after.pod["spec"]["initContainers"][0]["args"]
    assert not any("--keep" in each for each in put(pod(), changing("Updating")).pod["spec"]["initContainers"][0]["args"])


def test_a_guaranteed_pod_stays_guaranteed() -> None:
    asked = pod()
    asked["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "4", "memory": "8Gi"}}
    assert is_guaranteed(put(asked, cache(NEW)).pod["spec"])


def test_a_manifest_that_no_container_could_be_given_is_refused() -> None:
    files = [{"path": f"{number:04}-{'x' * 100}", "size": 1, "sha256": SHA256} for number in range(1000)]
    outcome = put(pod(), cache({**NEW, "manifest": {"files": files}}))
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.pod) == ("ManifestTooLarge", None)


@pytest.mark.parametrize("source", ["models/v2", "https://[/v2", ""])
def test_a_source_that_is_no_url_is_refused_and_named(source: str) -> None:
    outcome = put(pod(), cache({**NEW, "source": source}))
    assert isinstance(outcome, Refused)
    assert outcome.message.startswith("spec.model.artifacts[0]: ")


def test_a_pod_without_sidecar_is_denied_only_without_its_artifacts() -> None:
    alone = pod()
    alone["spec"]["hostNetwork"] = True
    kinds = [
        type(decide(Asked(asked, "llm", required=True), [cache(NEW)], Asker("operators", "hook"), put))
        for asked in (alone, pinned("v0"), put(pod(), cache(NEW)).pod | {"metadata": pinned("v0")["metadata"]})
    ]
    assert kinds[:2] == [Warn, Deny]
    assert kinds[2] is Deny


def test_a_copy_whose_artifacts_nobody_knows_is_denied_though_its_old_sidecar_can_be_taken_out() -> None:
    copied = put(pinned("v1"), changing("Updating")).pod
    decision = decide(Asked(copied, "llm", required=True), [cache(NEW)], Asker("operators", "hook"), put)
    assert isinstance(decision, Deny)
    assert decision.reason == "ArtifactsUnknown"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"container": 1, "empty": {}}', '{"container": "vllm", "empty": {"a": 1}}', "[" * 5000])
def test_a_record_that_somebody_else_wrote_undoes_nothing(text: str) -> None:
    asked = put(pod(), cache(NEW)).pod
    asked["metadata"]["annotations"]["inferencecache.io/artifacts"] = text
    outcome = put(asked, cache(NEW))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "NameTaken"
