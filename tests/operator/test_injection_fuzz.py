"""Pods of all kinds: injected wholly or not at all, never a crash, the same the second time, and undone to the byte."""

import copy
import json

import pytest
from hypothesis import event, given, settings
from tests.operator.any_pods import INSTALLATIONS, METADATA, PODS, RESOURCES, Pod, with_likely_vllm
from tests.operator.goldens import TOKEN

from inference_cache_contract import pod as names
from inference_cache_contract.endpoints import ADMIN_PORT
from inference_cache_operator.injection.delivery import STORE_VOLUME, TOKEN_VOLUME
from inference_cache_operator.injection.fetching import is_fetching
from inference_cache_operator.injection.inject import Injected, Refused, SidecarDefaults, Unchanged, inject, is_injected, stripped
from inference_cache_operator.resource import Resource

EXAMPLES = 300


@pytest.mark.slow
@settings(max_examples=EXAMPLES * 5)
@given(PODS, RESOURCES, INSTALLATIONS)
def test_a_pod_is_injected_wholly_or_not_at_all(pod: Pod, cache: Resource, defaults: SidecarDefaults) -> None:
    _check(pod, cache, defaults)


@settings(max_examples=EXAMPLES)
@given(with_likely_vllm("vllm"), METADATA, RESOURCES, INSTALLATIONS)
def test_a_pod_of_one_likely_container_is_injected_wholly_or_not_at_all(
    vllm: Pod, meta: Pod, cache: Resource, defaults: SidecarDefaults
) -> None:
    _check({"metadata": meta, "spec": {"containers": [vllm]}}, cache, defaults)


def _check(pod: Pod, cache: Resource, defaults: SidecarDefaults) -> None:
    before = copy.deepcopy(pod)
    outcome = inject(pod, cache, defaults, TOKEN)
    event(type(outcome).__name__)
    assert pod == before
    match outcome:
        case Injected(after):
            _check_wholly(before, after, cache, defaults)
        case Refused():
            assert (outcome.pod is not None) is outcome.has_artifacts
            if outcome.pod is not None:
                assert json.dumps(stripped(outcome.pod), sort_keys=True) == json.dumps(before, sort_keys=True)
                assert inject(outcome.pod, cache, defaults, "another token") == outcome
        case Unchanged():
            assert before["metadata"]["annotations"][names.INJECT_ANNOTATION] == "false"


def _check_wholly(before: Pod, after: Pod, cache: Resource, defaults: SidecarDefaults) -> None:
    assert is_injected(after)
    assert isinstance(inject(after, cache, defaults, "another token"), Unchanged)
    assert json.dumps(stripped(after), sort_keys=True) == json.dumps(before, sort_keys=True)
    fetching = [each for each in after["spec"]["initContainers"] if is_fetching(each)]
    assert len(fetching) == len(cache.artifacts)
    sidecar = after["spec"]["initContainers"][len(fetching)]
    port, moved = (_flag_port(sidecar["args"], name) for name in ("--listen", "--upstream"))
    assert port != moved
    vllm = next(each for each in after["spec"]["containers"] if any(f"--port={moved}" in text for text in _texts(each)))
    text = next(text for text in reversed(_texts(vllm)) if f"--port={moved}" in text)
    assert text.strip(" \t\n\\").endswith(f"--port={moved}")
    assert text != f"--port={moved}" or _texts(vllm)[-1] is text
    assert vllm.get("ports") == next(each for each in before["spec"]["containers"] if each["name"] == vllm["name"]).get("ports")
    assert not _probed_ports(vllm) & {port, *_names_of(vllm, port)}
    assert vllm["lifecycle"]["preStop"]
    assert after["spec"]["terminationGracePeriodSeconds"] >= 30
    assert not _taken(after) & {moved, ADMIN_PORT}
    _check_delivery(after, fetching, vllm)
    mounted = {each["name"] for container in (sidecar, *fetching) for each in container["volumeMounts"]}
    assert mounted <= {each["name"] for each in after["spec"]["volumes"]}
    assert len(vllm.get("volumeMounts") or ()) == len(_mounts_before(before, vllm["name"])) + len(fetching)


def _check_delivery(after: Pod, fetching: list[Pod], vllm: Pod) -> None:
    """Only what fetches sees the token, and nobody can write the node's folder."""
    volumes = {each["name"]: each for each in after["spec"]["volumes"]}
    others = [each for each in [*after["spec"]["containers"], *after["spec"]["initContainers"]] if each not in fetching]
    assert not [mount for each in others for mount in each.get("volumeMounts") or () if mount["name"] == TOKEN_VOLUME]
    by_agent = [any(argument.startswith("--agent=") for argument in each["args"]) for each in fetching]
    assert all(there is (TOKEN_VOLUME in volumes) for there in by_agent)
    if "hostPath" in volumes.get(STORE_VOLUME, {}):
        mounts = [mount for each in (*fetching, vllm) for mount in each["volumeMounts"] if mount["name"] == STORE_VOLUME]
        assert len(mounts) == 2 * len(fetching)
        assert all(mount["readOnly"] for mount in mounts)


def _mounts_before(pod: Pod, name: str) -> list[Pod]:
    return next(each for each in pod["spec"]["containers"] if each["name"] == name).get("volumeMounts") or []


def _flag_port(args: list[str], name: str) -> int:
    return int(next(argument for argument in args if argument.startswith(name)).rpartition(":")[2])


def _texts(container: Pod) -> list[str]:
    return [*(container.get("command") or ()), *(container.get("args") or ())]


def _probed_ports(container: Pod) -> set[int | str]:
    probes = [container.get(kind) or {} for kind in ("livenessProbe", "readinessProbe", "startupProbe")]
    return {action["port"] for probe in probes for action in probe.values() if "port" in action}


def _names_of(container: Pod, port: int) -> set[str]:
    return {each["name"] for each in container.get("ports") or () if each["containerPort"] == port and "name" in each}


def _taken(pod: Pod) -> set[int]:
    """By the containers' declared ports."""
    every = [*pod["spec"]["containers"], *(each for each in pod["spec"]["initContainers"] if each.get("name") != names.SIDECAR_CONTAINER)]
    return {each["containerPort"] for container in every for each in container.get("ports") or () if each.get("protocol") != "UDP"}
