"""The webhook's decision beyond the golden pods: copies, reinvocations, what names an injection, what others add."""

import copy
import json
import time
from typing import Any

import pytest
from tests.operator.goldens import DEFAULTS, TOKEN, goldens, resource

from inference_cache_contract import pod as names
from inference_cache_contract.configuration import read_configuration
from inference_cache_operator.injection.inject import (
    Injected,
    Refused,
    SidecarDefaults,
    Unchanged,
    inject,
    injection_digest,
    is_injected,
    stripped,
)
from inference_cache_operator.injection.naming import asked_part, installation_digest
from inference_cache_operator.injection.undo import UNDO_ANNOTATION

Pod = dict[str, Any]


def plain() -> Pod:
    return copy.deepcopy(next(golden.pod for golden in goldens() if golden.name == "plain"))


def injected(pod: Pod, token: str = TOKEN, **spec: Any) -> Pod:
    outcome = inject(pod, resource(spec), DEFAULTS, token)
    assert isinstance(outcome, Injected)
    return outcome.pod


def annotations(pod: Pod) -> dict[str, str]:
    return dict(pod["metadata"]["annotations"])


def variables(pod: Pod) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in pod["spec"]["initContainers"][0]["env"]}


def test_the_first_configuration_is_the_resources_spec() -> None:
    configuration = read_configuration(annotations(injected(plain(), mode="Bypass"))[names.CONFIGURATION_ANNOTATION])
    assert configuration.spec == resource({"mode": "Bypass"}).spec
    assert configuration.flushes == ()


def test_the_sidecar_is_told_version_and_revision_of_its_own_pod() -> None:
    pod = injected(plain())
    assert variables(pod)["INFERENCE_CACHE_MODEL_VERSION"] == annotations(pod)[names.VERSION_ANNOTATION] == "v1.2.3"
    assert variables(pod)["INFERENCE_CACHE_REVISION"] == annotations(pod)[names.REVISION_ANNOTATION]


def test_a_pod_made_before_the_new_versions_artifacts_are_there_serves_the_old_one() -> None:
    spec = {"model": {"version": "v2", "artifacts": [{"source": "s3://models/v2/", "mountPath": "/models"}]}}
    outcome = inject(plain(), resource(spec, status={"phase": "Preloading", "activeVersion": "v1"}), DEFAULTS, TOKEN)
    assert isinstance(outcome, Injected)
    assert annotations(outcome.pod)[names.VERSION_ANNOTATION] == "v1"


def test_what_other_webhooks_add_does_not_hide_the_sidecar_and_survives_stripping() -> None:
    pod = injected(plain())
    proxy = {"name": "istio-proxy", "image": "example.org/proxy:1", "restartPolicy": "Always"}
    pod["spec"]["initContainers"] = [{"name": "istio-init", "image": "example.org/init:1"}, proxy, *pod["spec"]["initContainers"]]
    pod["spec"]["containers"] = [{"name": "agent", "image": "example.org/agent:1"}, *pod["spec"]["containers"]]
    pod["spec"]["volumes"] = [{"name": "istio", "emptyDir": {}}, *reversed(pod["spec"]["volumes"])]
    pod["spec"]["containers"][1]["livenessProbe"]["httpGet"] = {"path": "/app-health/vllm/livez", "port": 15020}
    pod["metadata"]["annotations"]["sidecar.istio.io/status"] = "{}"
    assert is_injected(pod)
    assert isinstance(inject(pod, resource(), DEFAULTS, "another"), Unchanged)
    left = stripped(pod)
    assert [each["name"] for each in left["spec"]["initContainers"]] == ["istio-init", "istio-proxy"]
    assert left["spec"]["volumes"] == [{"name": "istio", "emptyDir": {}}]
    assert left["metadata"]["annotations"] == {"sidecar.istio.io/status": "{}"}
    vllm = left["spec"]["containers"][1]
    assert vllm == plain()["spec"]["containers"][0] | {"livenessProbe": {"httpGet": {"path": "/app-health/vllm/livez", "port": 15020}}}


def test_an_argument_that_another_webhook_added_behind_ours_stays() -> None:
    pod = injected(plain())
    pod["spec"]["containers"][0]["args"].append("--enforce-eager")
    assert stripped(pod)["spec"]["containers"][0]["args"] == [*plain()["spec"]["containers"][0]["args"], "--enforce-eager"]


def test_a_copy_of_another_caches_pod_is_injected_anew() -> None:
    theirs = inject(plain(), resource(name="other"), DEFAULTS, "their token")
    assert isinstance(theirs, Injected)
    assert injected(theirs.pod) == injected(plain())


def test_a_copy_with_another_model_is_not_taken_for_the_one_it_was_copied_from() -> None:
    pod, other = injected(plain()), plain()
    pod["spec"]["containers"][0]["args"][1] = other["spec"]["containers"][0]["args"][1] = "acme/another-model"
    assert injected(pod, "new") == injected(other, "new")
    assert annotations(injected(other))[names.REVISION_ANNOTATION] != annotations(injected(plain()))[names.REVISION_ANNOTATION]


def test_a_copy_that_can_no_longer_be_injected_loses_the_sidecar() -> None:
    pod = injected(plain())
    pod["spec"]["containers"][0]["args"].append("--uds=/run/vllm.sock")
    outcome = inject(pod, resource(), DEFAULTS, TOKEN)
    assert isinstance(outcome, Refused)
    assert outcome.pod is not None
    assert not is_injected(outcome.pod)
    assert outcome.pod["spec"]["containers"][0]["args"] == [*plain()["spec"]["containers"][0]["args"], "--uds=/run/vllm.sock"]


def test_an_outdated_injection_is_replaced() -> None:
    newer = SidecarDefaults("example.org/inference-cache-sidecar:0.2.0")
    outcome = inject(injected(plain()), resource(), newer, TOKEN)
    assert outcome == inject(plain(), resource(), newer, TOKEN)


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '{"container": 5}', "[" * 5000])
def test_an_undo_annotation_that_is_not_ours_does_no_harm(text: str) -> None:
    pod = injected(plain())
    pod["metadata"]["annotations"][UNDO_ANNOTATION] = text
    assert not is_injected(pod)
    assert stripped(pod) == pod
    outcome = inject(pod, resource(), DEFAULTS, TOKEN)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "NameTaken"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("words", [5]),
        ("grace", [1]),
        ("shell_index", -1),
        ("probes", {"livenessProbe": None}),
        ("place", "image"),
        ("empty", {"spec.volumes": 2}),
    ],
)
def test_an_undo_annotation_of_another_form_is_not_heeded(field: str, value: Any) -> None:
    pod = injected(plain())
    record = json.loads(annotations(pod)[UNDO_ANNOTATION]) | {field: value}
    pod["metadata"]["annotations"][UNDO_ANNOTATION] = json.dumps(record)
    assert not is_injected(pod)


HOT = [
    {"mode": "Bypass"},
    {"semantic": {"threshold": 0.97}},
    {"exact": {"ttl": "1h"}},
    {"model": {"name": "acme-faq", "version": "v9"}},
    {"store": {"memory": {"maxBytes": "100Mi"}}},
    {"rollout": {"retain": "1h", "trigger": "Manual"}},
    {"tenancy": {"from": "Shared"}},
    {"prefixCaching": {"enabled": True}},
]
SHAPES = [
    {"sidecar": {"image": "example.org/other:1"}},
    {"sidecar": {"resources": {"limits": {"cpu": "2"}}}},
    {"sidecar": {"adminTokenSecretRef": {"name": "admin", "key": "token"}}},
    {"store": {"memory": {"maxBytes": "8Gi"}}},
    {"store": {"redis": {"urlSecretRef": {"name": "redis", "key": "url"}}}},
    {"features": {"upstream": "http://feast:6566"}},
    {"rollout": {"drainTimeout": "5m"}},
    {"prefixCaching": {"enabled": False}},
]


@pytest.mark.parametrize("spec", HOT, ids=str)
def test_what_reaches_running_sidecars_makes_no_injection_outdated(spec: dict[str, Any]) -> None:
    assert injection_digest(resource(spec), DEFAULTS) == injection_digest(resource(), DEFAULTS)


def test_whatever_shapes_the_pod_makes_injections_outdated() -> None:
    digests = [injection_digest(resource(spec), DEFAULTS) for spec in ({}, *SHAPES)]
    digests += [injection_digest(resource(), SidecarDefaults("example.org/x:1")), injection_digest(resource(name="other"), DEFAULTS)]
    assert len(set(digests)) == len(digests)


def test_what_the_installation_adds_is_told_apart_from_what_the_resource_asks_for() -> None:
    upgraded = SidecarDefaults("example.org/inference-cache-sidecar:0.2.0", log_level="debug", resources={"cpu": "2", "memory": "4Gi"})
    before, after = injection_digest(resource(), DEFAULTS), injection_digest(resource(), upgraded)
    assert asked_part(before) == asked_part(after)
    assert before != after
    asked = [asked_part(injection_digest(resource(spec), DEFAULTS)) for spec in ({}, *SHAPES)]
    assert len(set(asked)) == len(asked)
    assert installation_digest(DEFAULTS) == installation_digest(DEFAULTS) != installation_digest(upgraded)


def test_what_a_resource_asks_for_has_the_same_name_in_every_version_of_the_operator() -> None:
    """Else an upgrade would roll every workload of the cluster."""
    spec = {"sidecar": {"image": "example.org/x:1"}, "rollout": {"drainTimeout": "5m"}, "features": {"upstream": "http://feast:6566"}}
    assert asked_part(injection_digest(resource(spec), DEFAULTS)) == "99359a107568078a"


def test_an_injected_pod_can_be_found_by_its_label_and_loses_it_with_the_sidecar() -> None:
    pod = injected(plain())
    assert pod["metadata"]["labels"][names.INJECTED_LABEL] == "true"
    assert names.INJECTED_LABEL not in stripped(pod)["metadata"].get("labels", {})
    own = plain()
    own["metadata"]["labels"][names.INJECTED_LABEL] = "mine"
    assert stripped(injected(own)) == own


@pytest.mark.parametrize("version", ["v1\n", "v\t1", "v" * 129, "v\u00a01"], ids=["line-end", "tab", "too-long", "other-blank"])
def test_a_template_whose_version_the_sidecar_would_not_take_is_refused(version: str) -> None:
    pod = plain()
    pod["metadata"]["annotations"] = {names.VERSION_ANNOTATION: version}
    outcome = inject(pod, resource(), DEFAULTS, TOKEN)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "Version"


def test_pods_with_other_init_containers_share_nothing_though_vllm_is_the_same() -> None:
    revisions = set()
    for source in ("s3://m/v1", "s3://m/v2"):
        pod = plain()
        pod["spec"]["initContainers"] = [{"name": "fetch", "image": "example.org/fetch", "args": [source]}]
        again = injected(pod)
        revisions.add(annotations(again)[names.REVISION_ANNOTATION])
        assert isinstance(inject(again, resource(), DEFAULTS, TOKEN), Unchanged)
        again["spec"]["initContainers"][1]["args"] = ["s3://m/v3"]
        assert isinstance(inject(again, resource(), DEFAULTS, TOKEN), Injected)
    assert len(revisions) == 2


def test_a_spec_that_fits_no_annotation_is_refused() -> None:
    outcome = inject(plain(), resource({"semantic": {"categories": ["x" * 300_000]}}), DEFAULTS, TOKEN)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "ConfigurationTooLarge"


def test_a_pod_that_wants_no_cache_stays_without() -> None:
    pod = plain()
    pod["metadata"]["annotations"] = {names.INJECT_ANNOTATION: "false"}
    assert isinstance(inject(pod, resource(), DEFAULTS, TOKEN), Unchanged)


def test_windows_is_refused() -> None:
    pod = plain()
    pod["spec"]["os"] = {"name": "windows"}
    outcome = inject(pod, resource(), DEFAULTS, TOKEN)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "Windows"


HOSTILE: dict[str, dict[str, Any]] = {
    "blanks": {"command": ["sh", "-c"], "args": ["vllm serve" + " " * 400_000 + "m" + " \\\n" * 100_000]},
    "one-word": {"command": ["sh", "-c"], "args": ["vllm serve " + "m" * 500_000]},
    "quotes": {"command": ["sh", "-c"], "args": ["vllm serve " + "''" * 200_000]},
    "doubling": {
        "args": ["--model", "$(V60)"],
        "env": [{"name": "V0", "value": "xx"}, *({"name": f"V{n}", "value": f"$(V{n - 1})" * 2} for n in range(1, 61))],
    },
    "doubling-in-a-shell": {
        "command": ["sh", "-c"],
        "args": ["vllm serve " + "$V ${V} " * 50_000],
        "env": [{"name": "V", "value": "a " * 40_000}],
    },
    "references": {"args": ["$(V)" * 100_000], "env": [{"name": "V", "value": "x" * 90_000}]},
    "variables": {
        "env": [{"name": f"V{n}", "value": "8000"} for n in range(20_000)],
        "livenessProbe": {"exec": {"command": ["$" * 1000 + "{W"] * 200}},
    },
    "image": {"image": "vllm-." * 100_000},
}


@pytest.mark.parametrize("container", HOSTILE.values(), ids=HOSTILE)
def test_no_pod_keeps_the_webhook_busy(container: dict[str, Any]) -> None:
    pod = plain()
    pod["spec"]["containers"] = [{"name": "vllm", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model", "m"], **container}]
    start = time.process_time()
    outcome = inject(pod, resource(), DEFAULTS, TOKEN)
    assert time.process_time() - start < 5
    if isinstance(outcome, Injected):
        assert stripped(outcome.pod) == pod
