"""The sidecar's container: what it may use, what it reads, and what Kubernetes would not take."""

from typing import Any

import pytest
from tests.operator.goldens import DEFAULTS, TOKEN, goldens, resource

from inference_cache_operator.injection.inject import Injected, Refused, SidecarDefaults, inject
from inference_cache_operator.injection.resources import is_guaranteed


def outcome(spec: dict[str, Any], defaults: SidecarDefaults = DEFAULTS) -> Injected | Refused:
    found = inject(next(golden.pod for golden in goldens() if golden.name == "guaranteed"), resource(spec), defaults, TOKEN)
    assert isinstance(found, Injected | Refused)
    return found


def sidecar(spec: dict[str, Any], defaults: SidecarDefaults = DEFAULTS) -> dict[str, Any]:
    found = outcome(spec, defaults)
    assert isinstance(found, Injected)
    container: dict[str, Any] = found.pod["spec"]["initContainers"][0]
    return container


def with_resources(**given: dict[str, Any]) -> dict[str, Any]:
    return {"sidecar": {"resources": given}}


RESOURCES = [
    pytest.param({}, {}, {"cpu": "1", "memory": "1Gi"}, id="default"),
    pytest.param({"store": {"memory": {"maxBytes": "624Mi"}}}, {}, {"cpu": "1", "memory": "1Gi"}, id="store-fits"),
    pytest.param({"store": {"memory": {"maxBytes": "625Mi"}}}, {}, {"cpu": "1", "memory": "1025Mi"}, id="store-does-not-fit"),
    pytest.param({"store": {"memory": {"maxBytes": 2**31}}}, {}, {"cpu": "1", "memory": "2448Mi"}, id="store-in-bytes"),
    pytest.param({"store": {"memory": {"maxBytes": "much"}}}, {}, {"cpu": "1", "memory": "1Gi"}, id="store-unreadable"),
    pytest.param(with_resources(limits={"cpu": 2}), {}, {"cpu": "2", "memory": "1Gi"}, id="limit-is-request"),
    pytest.param(with_resources(requests={"cpu": "250m"}), {"cpu": "250m"}, {"cpu": "1", "memory": "1Gi"}, id="asks-for-less"),
    pytest.param(with_resources(requests={"memory": "3G"}), {}, {"cpu": "1", "memory": "3G"}, id="asks-for-more"),
    pytest.param(
        with_resources(limits={"ephemeral-storage": "1Gi"}), {}, {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}, id="disk"
    ),
]


@pytest.mark.parametrize(("spec", "requests", "limits"), RESOURCES)
def test_limits_are_requests_unless_the_resource_asks_for_less(
    spec: dict[str, Any], requests: dict[str, str], limits: dict[str, str]
) -> None:
    assert sidecar(spec)["resources"] == {"requests": {**limits, **requests}, "limits": limits}


MODEST = [
    pytest.param({}, {"cpu": "100m", "memory": "1Gi"}, {"memory": "1Gi"}, id="default"),
    pytest.param(with_resources(limits={"memory": "2Gi"}), {"cpu": "100m", "memory": "2Gi"}, {"memory": "2Gi"}, id="memory-said"),
    pytest.param(with_resources(limits={"cpu": "2"}), {"cpu": "2", "memory": "1Gi"}, {"cpu": "2", "memory": "1Gi"}, id="cpu-said"),
    pytest.param(with_resources(requests={"cpu": "1"}), {"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}, id="cpu-asked"),
]


@pytest.mark.parametrize(("spec", "requests", "limits"), MODEST)
def test_where_a_pod_is_not_guaranteed_anyway_little_cpu_is_asked_for(
    spec: dict[str, Any], requests: dict[str, str], limits: dict[str, str]
) -> None:
    burstable = next(golden.pod for golden in goldens() if golden.name == "plain")
    found = inject(burstable, resource(spec), DEFAULTS, TOKEN)
    assert isinstance(found, Injected)
    assert found.pod["spec"]["initContainers"][0]["resources"] == {"requests": requests, "limits": limits}


CONTAINERS = [
    pytest.param({"limits": {"cpu": "1", "memory": "1Gi"}}, True, id="limits-alone"),
    pytest.param({"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 1, "memory": "1Gi"}}, True, id="written-otherwise"),
    pytest.param({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, False, id="asks-for-less"),
    pytest.param({"limits": {"memory": "1Gi"}}, False, id="no-cpu"),
    pytest.param({}, False, id="nothing"),
]


@pytest.mark.parametrize(("resources", "guaranteed"), CONTAINERS)
def test_guaranteed_is_what_kubernetes_calls_so(resources: dict[str, Any], guaranteed: bool) -> None:
    assert is_guaranteed({"containers": [{"name": "vllm", "resources": resources}]}) is guaranteed


IMPOSSIBLE = [
    pytest.param(with_resources(requests={"cpu": "2"}, limits={"cpu": "1500m"}), "SidecarResources", id="more-than-limit"),
    pytest.param(with_resources(limits={"cpu": "lots"}), "SidecarResources", id="no-amount"),
    pytest.param(with_resources(limits={"nvidia.com/gpu": "1"}), "SidecarResources", id="gpu"),
    pytest.param({"sidecar": {"image": " padded "}}, "SidecarImage", id="image"),
    pytest.param({"store": {"redis": {"urlSecretRef": {"name": "redis", "key": "a b"}}}}, "SecretReference", id="key"),
]


@pytest.mark.parametrize(("spec", "reason"), IMPOSSIBLE)
def test_what_kubernetes_would_not_take_never_reaches_a_pod(spec: dict[str, Any], reason: str) -> None:
    found = outcome(spec)
    assert isinstance(found, Refused)
    assert found.reason == reason
    assert "spec." in found.message


def test_without_an_image_nothing_is_injected() -> None:
    found = outcome({}, SidecarDefaults(""))
    assert isinstance(found, Refused)
    assert found.reason == "SidecarImage"


def test_a_missing_secret_never_keeps_a_pod_from_starting() -> None:
    variables = sidecar({"tenancy": {"keySecretRef": {"name": "tenancy"}}})["env"]
    reference = {"secretKeyRef": {"name": "tenancy", "key": "key", "optional": True}}
    assert {"name": "INFERENCE_CACHE_TENANCY_KEY", "valueFrom": reference} in variables


def test_the_installations_settings_reach_the_sidecar() -> None:
    container = sidecar({}, SidecarDefaults("example.org/s:1", "Never", {"cpu": "100m", "memory": "512Mi"}, "debug"))
    assert (container["image"], container["imagePullPolicy"]) == ("example.org/s:1", "Never")
    # The store's default limit is not in the resource, so that the default of memory is what counts.
    assert container["resources"]["limits"] == {"cpu": "100m", "memory": "512Mi"}
    assert "--log-level=debug" in container["args"]
