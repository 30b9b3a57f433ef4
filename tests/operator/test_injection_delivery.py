"""In which way files come to a pod: chosen by resource, installation and pod, changed in copies only, and the pods that fetch ahead."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.goldens import DEFAULTS, TOKEN, WITH_AGENT, goldens, resource

from inference_cache_artifacts.command import _check_together
from inference_cache_artifacts.flags import fetch_parser
from inference_cache_artifacts.handover.protocol import AUDIENCE
from inference_cache_operator.injection.artifacts import artifacts_of
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.injection.delivery import STORE_VOLUME, TOKEN_VOLUME, delivery_of
from inference_cache_operator.injection.fetching import is_fetching, is_volume, prefetching
from inference_cache_operator.injection.inject import Injected, Refused, Unchanged, inject, injection_digest, stripped
from inference_cache_operator.injection.naming import installation_digest
from inference_cache_operator.resource import Resource

Pod = dict[str, Any]
OLD = {"source": "s3://models/faq/v1/", "mountPath": "/models"}
NEW = {"source": "s3://models/faq/v2/", "mountPath": "/models"}
SECRET = {"credentialsSecretRef": {"name": "s3"}}
CLAIM = {"persistentVolumeClaim": {"claimName": "models"}}
WAYS = ("", "HostPath", "Agent", "Pod")


def plain() -> Pod:
    return copy.deepcopy(next(golden.pod for golden in goldens() if golden.name == "plain"))


def cache(delivery: str = "", *artifacts: dict[str, Any], **model: Any) -> Resource:
    status = {"artifacts": {"delivery": delivery}} if delivery else {}
    return resource({"model": {"version": "v2", "artifacts": list(artifacts or (NEW,)), **model}}, status=status)


def put(pod: Pod, by: Resource, defaults: SidecarDefaults = WITH_AGENT) -> Pod:
    outcome = inject(pod, by, defaults, TOKEN)
    assert isinstance(outcome, Injected | Refused)
    assert outcome.pod is not None
    return outcome.pod


def volume(pod: Pod, name: str) -> dict[str, Any] | None:
    return next((each for each in pod["spec"]["volumes"] if each["name"] == name), None)


@pytest.mark.parametrize(
    ("by", "defaults", "spec", "way"),
    [
        pytest.param(cache("HostPath"), DEFAULTS, {}, "Pod", id="no-agent"),
        pytest.param(cache("HostPath", artifactStorage=CLAIM), DEFAULTS, {}, "Claim", id="claim-without-agent"),
        pytest.param(cache("HostPath", artifactStorage=CLAIM), WITH_AGENT, {}, "Claim", id="claim"),
        pytest.param(cache(), WITH_AGENT, {}, "Agent", id="not-known-yet"),
        pytest.param(cache("Agent"), WITH_AGENT, {}, "Agent", id="agent"),
        pytest.param(cache("Pod"), WITH_AGENT, {}, "Agent", id="said-before-there-were-agents"),
        pytest.param(cache("HostPath"), WITH_AGENT, {}, "HostPath", id="host-path"),
        pytest.param(cache("HostPath"), WITH_AGENT, {"dnsPolicy": "ClusterFirst"}, "HostPath", id="host-path-as-defaulted"),
        pytest.param(cache("HostPath"), WITH_AGENT, {"hostNetwork": True}, "Agent", id="node-network"),
        pytest.param(
            cache("HostPath"), WITH_AGENT, {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}, "HostPath", id="node-network-dns"
        ),
        pytest.param(cache("HostPath"), WITH_AGENT, {"dnsPolicy": "Default"}, "Agent", id="the-nodes-dns"),
        pytest.param(cache("HostPath"), WITH_AGENT, {"dnsPolicy": "None"}, "Agent", id="a-dns-of-its-own"),
    ],
)
def test_the_way_is_chosen_by_resource_installation_and_pod(by: Resource, defaults: SidecarDefaults, spec: Pod, way: str) -> None:
    assert delivery_of(by, defaults, spec) == way


@pytest.mark.parametrize("text", [{"delivery": None}, {"delivery": 3}, "HostPath", None, []])
def test_a_status_that_somebody_mangled_is_one_that_says_nothing(text: Any) -> None:
    assert delivery_of(resource(status={"artifacts": text}), WITH_AGENT, {}) == "Agent"


def test_no_namespaces_folder_is_mounted_elsewhere() -> None:
    found = volume(put(plain(), cache("HostPath")), STORE_VOLUME)
    assert found is not None
    assert found["hostPath"] == {"path": "/var/lib/inference-cache/agent/llm", "type": "DirectoryOrCreate"}


def test_the_folder_is_the_installations() -> None:
    found = volume(put(plain(), cache("HostPath"), replace(WITH_AGENT, artifacts_folder="/data/models")), STORE_VOLUME)
    assert found is not None
    assert found["hostPath"]["path"] == "/data/models/llm"


@pytest.mark.parametrize("way", ["HostPath", "Agent"])
def test_only_what_fetches_sees_the_token_which_is_good_for_the_agent_alone(way: str) -> None:
    pod = put(plain(), cache(way))
    seeing = [each["name"] for kind in ("containers", "initContainers") for each in pod["spec"][kind] if _mounts(each, TOKEN_VOLUME)]
    assert seeing == ["inference-cache-fetch-0"]
    token = volume(pod, TOKEN_VOLUME)
    assert token is not None
    assert token["projected"] == {"sources": [{"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": 3600, "path": "token"}}]}


def test_without_agents_a_pod_has_no_token_and_is_what_it_was() -> None:
    assert put(plain(), cache("HostPath"), DEFAULTS) == put(plain(), cache(), DEFAULTS)
    assert volume(put(plain(), cache("HostPath"), DEFAULTS), TOKEN_VOLUME) is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("defaults", [DEFAULTS, WITH_AGENT], ids=["without", "with-agent"])
def test_running_pods_are_as_they_should_be_whatever_the_way_and_whether_there_are_agents(way: str, defaults: SidecarDefaults) -> None:
    assert injection_digest(cache(way), defaults) == injection_digest(cache(), DEFAULTS)


def test_a_webhook_with_another_agent_or_folder_is_another_installation() -> None:
    installations = (DEFAULTS, WITH_AGENT, replace(WITH_AGENT, artifacts_folder="/data"), replace(WITH_AGENT, artifacts_agent="http://b:1"))
    assert len({installation_digest(each) for each in installations}) == len(installations)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("now", [pytest.param(cache(each), id=f"now-{each}") for each in WAYS])
@pytest.mark.parametrize("hostNetwork", [False, True], ids=["with-sidecar", "without-sidecar"])
def test_a_copy_of_a_pod_gets_its_files_as_its_namespace_allows_now(way: str, now: Resource, hostNetwork: bool) -> None:
    asked = plain()
    if hostNetwork:
        asked["spec"] |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    first = put(asked, cache(way))
    again = inject(first, now, WITH_AGENT, TOKEN)
    second = first if isinstance(again, Unchanged) else put(first, now)
    assert second == put(asked, now)
    assert stripped(second) == asked


def test_a_copy_of_a_pod_of_another_folder_gets_the_present_one() -> None:
    first = put(plain(), cache("HostPath"), replace(WITH_AGENT, artifacts_folder="/data"))
    assert put(first, cache("HostPath")) == put(plain(), cache("HostPath"))


def test_a_pod_that_fetches_ahead_for_the_agent_holds_no_files_itself() -> None:
    by = cache("HostPath", {**NEW, **SECRET}, {"source": "https://cdn.example.com/lora/", "mountPath": "/lora"})
    containers, volumes = prefetching(artifacts_of(by, "v2"), by, WITH_AGENT)
    assert [each["name"] for each in containers] == ["inference-cache-fetch-0", "inference-cache-fetch-1"]
    for container in containers:
        command, *arguments = container["args"]
        _check_together(fetch_parser(), fetch_parser().parse_args(arguments))
        assert command == "fetch"
        assert {"--node-only", "--holder=llm.faq-bot", f"--agent={WITH_AGENT.artifacts_agent}"} <= set(arguments)
        assert not any(each.startswith("--store") for each in arguments)
        assert {mount["name"] for mount in container["volumeMounts"]} <= {each["name"] for each in volumes}
    assert [each["name"] for each in volumes] == [
        "inference-cache-fetch-tmp",
        "inference-cache-fetch-no-token",
        TOKEN_VOLUME,
        "inference-cache-credentials-0",
    ]


@pytest.mark.parametrize("way", ["HostPath", "Agent"])
def test_what_fetches_ahead_is_the_same_whatever_the_namespace_allows(way: str) -> None:
    assert prefetching(artifacts_of(cache(way), "v2"), cache(way), WITH_AGENT) == prefetching(
        artifacts_of(cache(), "v2"), cache(), WITH_AGENT
    )


def test_a_pod_that_fetches_ahead_onto_a_claim_writes_it() -> None:
    by = cache("", artifactStorage=CLAIM)
    (container,), volumes = prefetching(artifacts_of(by, "v2"), by, WITH_AGENT)
    assert {"name": STORE_VOLUME, "persistentVolumeClaim": {"claimName": "models"}} in volumes
    assert {"name": STORE_VOLUME, "mountPath": "/var/lib/inference-cache/artifacts"} in container["volumeMounts"]
    assert container["args"] == put(plain(), by)["spec"]["initContainers"][0]["args"]


@pytest.mark.parametrize("by", [cache("HostPath"), cache("Agent"), cache("", artifactStorage=CLAIM)], ids=["host-path", "agent", "claim"])
def test_what_fetches_ahead_spares_the_version_that_is_served(by: Resource) -> None:
    by = replace(by, status={**by.status, "phase": "Preloading", "activeVersion": "v1", "activeArtifacts": [OLD]})
    (container,), _ = prefetching(artifacts_of(by, "v2"), by, WITH_AGENT)
    (served,) = artifacts_of(by, "v1")
    assert [each for each in container["args"] if each.startswith("--keep=")] == [f"--keep={served.tree}"]


def test_everything_that_fetches_ahead_is_known_as_ours() -> None:
    by = cache("Agent", {**NEW, **SECRET})
    containers, volumes = prefetching(artifacts_of(by, "v2"), by, WITH_AGENT)
    assert all(map(is_fetching, containers))
    assert all(map(is_volume, volumes))


def _mounts(container: Pod, name: str) -> bool:
    return any(each["name"] == name for each in container.get("volumeMounts") or ())
