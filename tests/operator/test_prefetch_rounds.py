"""Fetching ahead, round after round, against a cluster that is a dict."""

from dataclasses import replace
from typing import Any

import pytest
from tests.operator.prefetch_cluster import PODS, PodCluster, agent_pod, look, states
from tests.operator.prefetch_scenes import AGENT, NOW, cache, failed, running, succeeded, vllm

from inference_cache_operator import errors
from inference_cache_operator.audit.pods import read_pod
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.prefetch.agents import AWAY_SECONDS, AgentList
from inference_cache_operator.prefetch.outcome import Found, Prefetched, artifacts_status
from inference_cache_operator.prefetch.pods import PREFETCH_LABEL
from inference_cache_operator.prefetch.prefetcher import Prefetcher
from inference_cache_operator.versions.state import State
from inference_cache_operator.versions.times import text_of


async def test_pods_may_be_replaced_once_all_nodes_have_the_files() -> None:
    cluster = PodCluster()
    first = await look(cluster)
    assert (first.preloaded, states(first), [each.reason for each in first.said]) == (
        False,
        {"n1": "Waiting", "n2": "Waiting"},
        ["PrefetchStarted"],
    )
    assert {each["metadata"]["labels"][PREFETCH_LABEL] for each in cluster.pods.values()} == {"uid"}
    cluster.tell(running)
    # It is told when the status has been written, which may take more than one round.
    assert [each.reason for each in (await look(cluster)).said] == ["PrefetchStarted"]
    known = cache(status={**cache().status, "artifacts": artifacts_status(first)})
    assert (await look(cluster, known)).said == ()
    cluster.tell(succeeded, "n1")
    half = await look(cluster)
    assert (half.preloaded, half.ready) == (False, 1)
    cluster.tell(succeeded)
    done = await look(cluster, known)
    assert (done.preloaded, [each.reason for each in done.said]) == (True, ["PrefetchDone"])
    assert len(cluster.pods) == 2
    assert (await look(cluster, state=State("Updating", active="v1", updating="v2"))).preloaded
    assert len(cluster.pods) == 2
    assert (await look(cluster, state=State("Stable", active="v2"))).preloaded
    assert cluster.pods == {}


async def test_a_node_that_gets_pods_meanwhile_is_waited_for() -> None:
    cluster = PodCluster()
    await look(cluster)
    cluster.tell(succeeded)
    third = await look(cluster, pods=[*PODS, vllm("n3")])
    assert (third.preloaded, states(third)) == (False, {"n1": "Ready", "n2": "Ready", "n3": "Waiting"})
    cluster.tell(succeeded)
    assert (await look(cluster, pods=[*PODS, vllm("n3")])).preloaded


async def test_a_failure_stops_it_and_a_success_after_all_lets_it_go_on() -> None:
    cluster = PodCluster()
    await look(cluster)
    cluster.tell(succeeded)
    cluster.tell(failed, "n2")
    found = await look(cluster)
    assert found.problem is not None
    assert (found.preloaded, found.problem.node, found.problem.reason) == (False, "n2", "Corrupt")
    assert "model.safetensors" in found.problem.message
    cluster.tell(succeeded)
    assert (await look(cluster)).preloaded


async def test_what_the_spec_says_cannot_be_fetched_stops_it() -> None:
    resource = cache()
    broken = {**resource.spec["model"], "artifacts": [{"source": "nowhere", "mountPath": "/models"}]}
    found = await look(PodCluster(), replace(resource, spec={**resource.spec, "model": broken}))
    assert found.problem is not None
    assert (found.preloaded, found.problem.reason) == (False, "Artifacts")


@pytest.mark.parametrize(
    "wanted",
    [pytest.param("v1", id="rolled-back"), pytest.param("v3", id="bumped-again")],
)
async def test_pods_of_a_version_that_is_wanted_no_more_go(wanted: str) -> None:
    cluster = PodCluster()
    await look(cluster)
    before = set(cluster.pods)
    found = await look(cluster, cache(wanted))
    assert not before & set(cluster.pods)
    assert (found.preloaded, len(cluster.pods)) == ((True, 0) if wanted == "v1" else (False, 2))


async def test_pods_go_when_the_artifacts_are_taken_out_of_the_spec() -> None:
    cluster = PodCluster()
    await look(cluster)
    found = await look(cluster, cache(count=0, status={"activeVersion": "v1", "artifacts": {"delivery": "HostPath"}}))
    assert (found, cluster.pods) == (Prefetched(), {})


async def test_without_agents_every_pod_fetches_for_itself() -> None:
    cluster: Any = PodCluster()
    prefetcher = Prefetcher(cluster, SidecarDefaults("sidecar:1"), now=lambda: NOW)
    assert await look(cluster, prefetcher=prefetcher) == Prefetched(found=Found("Pod"))
    assert await look(cluster, cache(claim="models"), prefetcher=prefetcher) == Prefetched(found=Found("Claim"))
    assert (cluster.pods, cluster.probes) == ({}, 0)


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(errors.NotAllowed("POST", "exceeded quota: pods"), id="quota"),
        pytest.param(errors.BadObject("POST", "exceeded quota: pods"), id="policy"),
    ],
)
async def test_what_the_api_server_has_against_such_pods_is_told(refusal: errors.ClusterError) -> None:
    cluster = PodCluster()
    cluster.refusal = refusal
    found = await look(cluster)
    assert found.problem is not None
    assert (found.preloaded, found.problem.reason, found.problem.message) == (False, "PrefetchRefused", "exceeded quota: pods")
    cluster.refusal = None
    assert (await look(cluster)).problem is None


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(errors.ClusterUnreachable("POST", "HTTP 503"), id="away"),
        pytest.param(errors.TooMany("POST", "HTTP 429"), id="busy"),
    ],
)
async def test_an_api_server_that_is_away_or_busy_puts_it_off_and_fails_no_round(error: errors.ClusterError) -> None:
    cluster = PodCluster()
    cluster.refusal = error
    found = await look(cluster)
    assert (found.preloaded, found.problem) == (False, None)
    (refused,) = [each for each in found.nodes if each.reason]
    assert (refused.state, refused.reason, refused.message) == ("Waiting", "PrefetchRefused", str(error))
    cluster.refusal = None
    await look(cluster)
    assert len(cluster.pods) == 2


@pytest.mark.parametrize(
    "error", [pytest.param(errors.ClusterUnreachable("DELETE"), id="away"), pytest.param(errors.NotAllowed("DELETE"), id="forbidden")]
)
async def test_a_pod_that_cannot_be_deleted_now_is_deleted_later(error: errors.ClusterError, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = PodCluster()
    await look(cluster)

    async def refuse(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(cluster, "delete", refuse)
        assert (await look(cluster, cache("v1"))).preloaded
    assert len(cluster.pods) == 2
    await look(cluster, cache("v1"))
    assert cluster.pods == {}


async def test_a_node_without_an_agent_is_not_waited_for_unless_its_agent_is_just_being_replaced() -> None:
    cluster, now = PodCluster(), [0.0]
    agents = AgentList(cluster, "ic", clock=lambda: now[0])  # type: ignore[arg-type]
    cluster.agents = [agent_pod("n1"), agent_pod("n2")]
    assert set(await agents.look() or ()) == {"n1", "n2"}
    cluster.agents.pop()
    now[0] = AWAY_SECONDS - 1
    assert await agents.look() == {"n1": read_pod(agent_pod("n1")), "n2": None}
    now[0] = AWAY_SECONDS
    assert set(await agents.look() or ()) == {"n1"}
    cluster.agents = None
    assert await agents.look() is None


async def test_prefetching_goes_on_where_there_are_agents() -> None:
    cluster = PodCluster()
    cluster.agents = [agent_pod("n1")]
    prefetcher = Prefetcher(cluster, AGENT, None, "ic", now=lambda: NOW)  # type: ignore[arg-type]
    found = await look(cluster, prefetcher=prefetcher)
    assert states(found) == {"n1": "Waiting"}
    cluster.tell(succeeded)
    assert (await look(cluster, prefetcher=prefetcher)).preloaded


async def test_where_agents_never_were_nobody_looks_for_such_pods_again() -> None:
    cluster: Any = PodCluster()
    await look(cluster)
    assert (len(cluster.pods), cluster.lists) == (2, 1)
    without = Prefetcher(cluster, SidecarDefaults("sidecar:1"), now=lambda: NOW)
    for _ in range(5):
        await look(cluster, prefetcher=without)
    # Once to tidy away what is left from the time before, and once to see that nothing is left.
    assert (cluster.pods, cluster.lists) == ({}, 3)


async def test_a_pod_that_fails_for_good_again_and_again_is_a_problem_all_the_time() -> None:
    cluster, now = PodCluster(), [NOW]
    prefetcher = Prefetcher(cluster, AGENT, now=lambda: now[0])  # type: ignore[arg-type]
    problems, made_ = set(), 0
    for step in range(400):
        now[0] = NOW + 5 * step
        cluster.tell(lambda _: {"phase": "Failed", "reason": "Evicted", "message": "no memory"})
        before = set(cluster.pods)
        found = await look(cluster, prefetcher=prefetcher, pods=[vllm("n1")])
        for name in set(cluster.pods) - before:
            made_ += 1
            cluster.pods[name]["metadata"].update(creationTimestamp=text_of(now[0]), uid=f"uid-{made_}")
        problems |= {found.problem and found.problem.reason} if step > 1 else set()
    assert problems == {"Evicted"}
    # In 2000 s: 30 s, 60 s, 120 s, 240 s, 480 s and 600 s apart.
    assert made_ == 7
