"""Which way files take to the pods of a namespace, as the API server lets pods in there."""

from typing import Any

import pytest
from tests.operator.prefetch_cluster import PodCluster
from tests.operator.prefetch_scenes import AGENT, cache

from inference_cache_operator import errors
from inference_cache_operator.prefetch.delivering import AGAIN_SECONDS, KEPT_SECONDS, DeliveryProbe, asking_pod
from inference_cache_operator.prefetch.outcome import Found

SECURITY = 'pods "inference-cache-delivery" is forbidden: violates PodSecurity "baseline:latest": hostPath volumes'
FORMER = {"artifacts": {"delivery": "HostPath"}}


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        pytest.param(None, {}, Found("HostPath"), id="let-in"),
        pytest.param(errors.NotAllowed("POST", SECURITY), FORMER, Found("Agent", SECURITY), id="pod-security"),
        pytest.param(errors.BadObject("POST", "a policy denied it"), {}, Found("Agent", "a policy denied it"), id="policy"),
        pytest.param(errors.NotAllowed("POST", "x" * 1000), {}, Found("Agent", "x" * 199 + "…"), id="at-length"),
        pytest.param(errors.ClusterUnreachable("POST"), FORMER, Found("HostPath"), id="away-keeps-the-former"),
        pytest.param(errors.ClusterUnreachable("POST"), {}, Found(), id="away-from-the-start"),
    ],
)
async def test_a_namespace_lets_files_come(error: errors.ClusterError | None, status: dict[str, Any], expected: Found) -> None:
    cluster: Any = PodCluster()
    cluster.hostile = error
    assert await DeliveryProbe(cluster, AGENT).found(cache(status=status)) == expected


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(errors.NotAllowed("POST", "forbidden: exceeded quota: pods"), id="quota"),
        pytest.param(errors.NotAllowed("POST", 'User "u" cannot create resource "pods"'), id="no-right"),
        pytest.param(errors.BadObject("POST", "only images of ours"), id="a-policy-about-images"),
        pytest.param(errors.ClusterUnreachable("POST"), id="away-meanwhile"),
    ],
)
async def test_a_refusal_of_any_pod_says_nothing_about_folders_of_the_node(refusal: errors.ClusterError) -> None:
    cluster: Any = PodCluster()
    cluster.hostile = cluster.closed = refusal
    assert await DeliveryProbe(cluster, AGENT).found(cache(status=FORMER)) == Found("HostPath")
    assert await DeliveryProbe(cluster, AGENT).found(cache(status={})) == Found()


def test_a_namespace_is_asked_by_pods_that_differ_in_the_folder_alone_and_that_limit_cpu() -> None:
    with_folder, without = (asking_pod("llm", AGENT, folder=each) for each in (True, False))
    assert with_folder["spec"]["containers"][0]["resources"]["limits"].keys() == {"cpu", "memory"}
    del with_folder["spec"]["volumes"], without["spec"]["volumes"]
    del with_folder["spec"]["containers"][0]["volumeMounts"], without["spec"]["containers"][0]["volumeMounts"]
    assert with_folder == without


async def test_a_namespace_is_asked_about_once_a_minute_and_sooner_where_nothing_was_found() -> None:
    cluster, now = PodCluster(), [0.0]
    probe = DeliveryProbe(cluster, AGENT, clock=lambda: now[0])  # type: ignore[arg-type]
    asked = []
    cluster.hostile = errors.ClusterUnreachable("POST")
    for now[0] in (0.0, AGAIN_SECONDS - 1, AGAIN_SECONDS, AGAIN_SECONDS + KEPT_SECONDS - 1, AGAIN_SECONDS + KEPT_SECONDS):
        await probe.found(cache())
        asked.append(cluster.probes)
        if now[0]:
            cluster.hostile = None
    assert asked == [1, 1, 2, 2, 3]
