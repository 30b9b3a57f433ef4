"""The golden pods against a real API server: accepted before and after, found by Services as before, and no less restricted."""

import copy
import json
from typing import Any
from urllib.error import HTTPError

import pytest
from hypothesis import HealthCheck, given, reject, settings
from tests.cluster.control_plane import ControlPlane
from tests.cluster.played_kubelet import played_kubelet
from tests.cluster.servers import until
from tests.operator.any_pods import INSTALLATIONS, PODS, RESOURCES
from tests.operator.goldens import TOKEN, Golden, goldens

from inference_cache_contract.pod import SIDECAR_CONTAINER
from inference_cache_operator.injection.container import TOKEN_FOLDER
from inference_cache_operator.injection.delivery import STORE_VOLUME
from inference_cache_operator.injection.fetching import is_fetching
from inference_cache_operator.injection.inject import Injected, Refused, SidecarDefaults, Unchanged, inject, stripped
from inference_cache_operator.resource import Resource

pytestmark = [pytest.mark.services, pytest.mark.slow]
SECONDS = 180.0
Pod = dict[str, Any]
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def dry_run(plane: ControlPlane, namespace: str, pod: Pod) -> Pod:
    """As the API server would create it: with defaults, and the service account's token. Raises AssertionError with what it says."""
    try:
        made: Pod = plane.api.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    except HTTPError as error:
        with error:
            message = json.load(error)["message"]
        raise AssertionError(f"{pod['metadata']['name']}: {message}") from None
    for field in ("uid", "creationTimestamp", "managedFields", "generation", "resourceVersion"):
        made["metadata"].pop(field, None)
    del made["status"]
    return made


def injected(golden: Golden, pod: Pod) -> Pod:
    outcome = golden.injected(pod)
    assert isinstance(outcome, Injected)
    return outcome.pod


def injectable() -> list[Golden]:
    return [golden for golden in goldens() if isinstance(golden.outcome, Injected)]


def test_the_api_server_accepts_every_golden_as_submitted(control_plane: ControlPlane, namespace: str) -> None:
    for golden in goldens():
        dry_run(control_plane, namespace, golden.pod)


def test_the_api_server_accepts_every_injected_golden_and_the_way_back_leads_to_what_was_submitted(
    control_plane: ControlPlane, namespace: str
) -> None:
    for golden in injectable():
        submitted = dry_run(control_plane, namespace, golden.pod)
        made = dry_run(control_plane, namespace, injected(golden, submitted))
        assert isinstance(golden.injected(made, "another token"), Unchanged), golden.name
        assert stripped(made) == submitted, golden.name


def test_the_api_server_accepts_what_gets_its_artifacts_and_no_sidecar(control_plane: ControlPlane, namespace: str) -> None:
    alone = [each for each in goldens() if isinstance(each.outcome, Refused) and each.outcome.has_artifacts]
    assert alone
    for golden in alone:
        submitted = dry_run(control_plane, namespace, golden.pod)
        outcome = golden.injected(submitted)
        assert isinstance(outcome, Refused)
        assert outcome.pod is not None
        made = dry_run(control_plane, namespace, outcome.pod)
        assert stripped(made) == submitted, golden.name
        again = golden.injected(made)
        assert isinstance(again, Refused)
        assert again.pod is not None
        assert stripped(again.pod) == submitted, golden.name


def test_what_is_injected_never_gets_the_service_accounts_token(control_plane: ControlPlane, namespace: str) -> None:
    for golden in injectable():
        made = dry_run(control_plane, namespace, injected(golden, dry_run(control_plane, namespace, golden.pod)))
        ours = [each for each in made["spec"]["initContainers"] if each["name"] == SIDECAR_CONTAINER or is_fetching(each)]
        assert ours
        for container in ours:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert mounts[TOKEN_FOLDER].endswith("no-token"), golden.name
            assert not any(name.startswith("kube-api-access") for name in mounts.values()), golden.name


def test_services_find_the_same_ports_before_and_after(control_plane: ControlPlane, namespace: str) -> None:
    found = injectable()
    with played_kubelet(control_plane.api, namespace):
        for golden in found:
            for state, pod in (("before", golden.pod), ("after", injected(golden, golden.pod))):
                _create_with_service(control_plane, namespace, golden, f"{golden.name}-{state}", pod)
        names = [f"{golden.name}-{state}" for golden in found for state in ("before", "after")]
        until(lambda: set(names) <= set(_slices(control_plane, namespace)), "an endpoint that is ready for each pod", SECONDS)
        slices = _slices(control_plane, namespace)
    for golden in found:
        before, after = slices[f"{golden.name}-before"], slices[f"{golden.name}-after"]
        assert before == after, golden.name
        assert any(port["name"] == "numeric" and port["port"] == _served_port(golden) for port in before["ports"]), golden.name


def test_a_restricted_pod_stays_restricted(control_plane: ControlPlane, namespace: str) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    control_plane.api.request("PATCH", f"/api/v1/namespaces/{namespace}", label, "application/merge-patch+json")
    careless = {"metadata": {"name": "careless"}, "spec": {"containers": [{"name": "main", "image": "main"}]}}
    until(lambda: not _is_restricted(control_plane, namespace, careless), "the label to be in force", SECONDS)
    passed = 0
    for golden in (each for each in injectable() if not _mounts_the_node(each)):
        for pod in (golden.pod, _hardened(golden.pod)):
            if _is_restricted(control_plane, namespace, pod):
                dry_run(control_plane, namespace, injected(golden, pod))
                passed += 1
    assert passed >= 60


def test_whatever_pod_the_api_server_accepts_it_accepts_injected(control_plane: ControlPlane, namespace: str) -> None:
    accepted = 0

    @settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck))
    @given(PODS, RESOURCES, INSTALLATIONS)
    def check(pod: Pod, cache: Resource, defaults: SidecarDefaults) -> None:
        nonlocal accepted
        named = {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {**pod["metadata"], "name": "any"}}
        try:
            submitted = dry_run(control_plane, namespace, named)
        except AssertionError:
            reject()
        outcome = inject(submitted, cache, defaults, TOKEN)
        if isinstance(outcome, Injected):
            accepted += 1
            assert stripped(dry_run(control_plane, namespace, outcome.pod)) == submitted

    check()
    assert accepted >= 20


def _mounts_the_node(golden: Golden) -> bool:
    """Which no resource of a restricted namespace asks for: the controller has found that nothing of the node may be mounted there."""
    return any(each["name"] == STORE_VOLUME and "hostPath" in each for each in injected(golden, golden.pod)["spec"].get("volumes", ()))


def _is_restricted(plane: ControlPlane, namespace: str, pod: Pod) -> bool:
    try:
        return bool(dry_run(plane, namespace, pod))
    except AssertionError as refusal:
        if "violates PodSecurity" in str(refusal):
            return False
        raise


def _hardened(pod: Pod) -> Pod:
    """As its owner would have to write it in a restricted namespace."""
    hard = copy.deepcopy(pod)
    spec = hard["spec"]
    spec["securityContext"] = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        container["securityContext"] = RESTRICTED
    return hard


def _served_port(golden: Golden) -> int:
    sidecar = next(each for each in injected(golden, golden.pod)["spec"]["initContainers"] if each["name"] == SIDECAR_CONTAINER)
    listen = next(argument for argument in sidecar["args"] if argument.startswith("--listen="))
    return int(listen.rpartition(":")[2])


def _create_with_service(plane: ControlPlane, namespace: str, golden: Golden, name: str, pod: Pod) -> None:
    own = copy.deepcopy(pod)
    own["metadata"] |= {"name": name, "labels": {"golden": name}}
    plane.api.request("POST", f"/api/v1/namespaces/{namespace}/pods", own)
    port = _served_port(golden)
    declared = [each for container in golden.pod["spec"]["containers"] for each in container.get("ports", [])]
    named = [each["name"] for each in declared if each["containerPort"] == port and each.get("name") and each.get("protocol") != "UDP"]
    ports = [{"name": "numeric", "port": 80, "targetPort": port}]
    ports += [{"name": f"named-{name}"[:15].rstrip("-"), "port": 81 + at, "targetPort": name} for at, name in enumerate(named)]
    spec = {"selector": {"golden": name}, "ports": ports}
    service = {"metadata": {"generateName": "golden-", "annotations": {"golden": name}, "labels": {"golden": name}}, "spec": spec}
    plane.api.request("POST", f"/api/v1/namespaces/{namespace}/services", service)


def _slices(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    """What each pod's Service leads to, less the address, where its pod is ready; by the pod's name."""
    found = {}
    for piece in plane.api.request("GET", f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")["items"]:
        for endpoint in piece.get("endpoints") or ():
            if endpoint["conditions"]["ready"]:
                ports = sorted(piece["ports"], key=lambda port: str(port["name"]))
                found[endpoint["targetRef"]["name"]] = {"ports": ports, "conditions": endpoint["conditions"]}
    return found
