"""Which pods fetch ahead, and when pods may be replaced: tables."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.prefetch_scenes import AGENT, NOW, artifact, cache, content, failed, made, running, succeeded, vllm

from inference_cache_contract.pod import INJECT_ANNOTATION
from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.audit.standing import Audited, Standing
from inference_cache_operator.controller.injecting import RealInjector
from inference_cache_operator.injection.delivery import Delivery
from inference_cache_operator.injection.inject import Refused, Unchanged, inject
from inference_cache_operator.prefetch.agents import Agents
from inference_cache_operator.prefetch.deciding import Need, Plan, Seen, clearing, need, plan, where
from inference_cache_operator.prefetch.nodes import LONGEST_RETRY_SECONDS, RETRY_SECONDS, Failure
from inference_cache_operator.prefetch.pods import NODE_ANNOTATION, is_prefetching, prefetch_pod
from inference_cache_operator.prefetch.telling import begun, ended
from inference_cache_operator.resource import Resource
from inference_cache_operator.versions.state import State

AMID = {"phase": "Preloading", "activeVersion": "v1", "activeArtifacts": [artifact("v1", "/models0")]}
PRELOADING = State("Preloading", active="v1", updating="v2")
Told = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


@pytest.mark.parametrize(
    ("resource", "state", "audited", "expected"),
    [
        pytest.param(cache(), State(active="v1"), [vllm()], "now", id="a-bump"),
        pytest.param(cache(), PRELOADING, [vllm()], "now", id="goes-on"),
        pytest.param(cache("v1"), PRELOADING, [vllm()], "none", id="rolled-back-amid"),
        pytest.param(cache("v1"), State("Updating", active="v1", updating="v1"), [vllm("n1", "v2")], "none", id="rolled-back-later"),
        pytest.param(cache("v3"), PRELOADING, [vllm()], "now", id="a-bump-of-a-bump"),
        pytest.param(cache("v3"), State("Updating", active="v1", updating="v2"), [vllm("n1", "v2")], "now", id="bumped-amid-replacing"),
        pytest.param(cache(), State("Updating", active="v1", updating="v2"), [vllm()], "over", id="pods-are-replaced"),
        pytest.param(cache(), State("Draining", active="v1", updating="v2"), [vllm(ending=True)], "over", id="old-pods-end"),
        pytest.param(cache(), State(), [vllm()], "none", id="first-sight"),
        pytest.param(cache(), State(active="v1"), [], "none", id="nothing-runs"),
        pytest.param(cache(), PRELOADING, [vllm(ending=True)], "none", id="nothing-stays"),
        pytest.param(cache(), PRELOADING, [vllm("n1", "v2")], "none", id="all-pods-are-of-the-new-version-already"),
        pytest.param(cache(), PRELOADING, [vllm("n1", "v2"), vllm()], "now", id="some-are-of-the-new-version-already"),
        pytest.param(cache(), PRELOADING, [replace(vllm(), standing=Standing.EXCLUDED)], "none", id="opted-out"),
        pytest.param(cache(count=0), PRELOADING, [vllm()], "none", id="no-artifacts"),
    ],
)
def test_files_are_fetched_ahead_where_pods_are_to_be_replaced(
    resource: Resource, state: State, audited: list[Audited], expected: Need
) -> None:
    assert need(resource, state, audited) == expected


def planned(
    audited: list[Audited],
    pods: list[Pod],
    resource: Resource | None = None,
    agents: Agents | None = None,
    failures: Mapping[str, Failure] | None = None,
) -> Plan:
    resource = resource or cache()
    delivery: Delivery = "Claim" if resource.artifact_claim is not None else "Agent"
    return plan(resource, content(resource), where(audited, delivery, agents), Seen(pods, NOW, agents, failures or {}))


def body(node: str = "n1", resource: Resource | None = None, like: Audited | None = None) -> dict[str, Any]:
    """As it is made for a pod on that node."""
    resource = resource or cache()
    what = content(resource)
    return prefetch_pod(resource, what, where([like or vllm(node)], "Agent", None)[node])


def nodes_of(bodies: Any) -> list[str]:
    return [each["metadata"]["annotations"][NODE_ANNOTATION] for each in bodies]


def old_pod(node: str = "n1", status: Told = running) -> Pod:
    """Of a version that is wanted no more."""
    body_ = body(node, cache("v0"))
    return made(body_, status(body_))


def pod_on(node: str, status: Told, **more: Any) -> Pod:
    body_ = body(node)
    return made(body_, status(body_), **more)


def evicted(_body: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}


def unscheduled(_body: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "no room"}]}


@pytest.mark.parametrize(
    ("audited", "pods", "create", "delete", "states"),
    [
        pytest.param([vllm("n2"), vllm("n1")], [], ["n1", "n2"], [], ["Waiting", "Waiting"], id="one-for-each-node"),
        pytest.param([vllm("n1"), vllm("n1", name="b")], [], ["n1"], [], ["Waiting"], id="one-for-two-pods-of-a-node"),
        pytest.param([vllm("")], [], [], [], [], id="a-pod-without-a-node"),
        pytest.param([vllm("n1")], [pod_on("n1", running)], [], [], ["Fetching"], id="one-runs"),
        pytest.param([vllm("n1")], [pod_on("n1", lambda _: None)], [], [], ["Waiting"], id="one-has-not-begun"),
        pytest.param([vllm("n1")], [pod_on("n1", unscheduled)], [], [], ["Waiting"], id="one-finds-no-room"),
        pytest.param([vllm("n1")], [pod_on("n1", succeeded)], [], [], ["Ready"], id="one-is-done"),
        pytest.param([vllm("n1")], [pod_on("n1", failed)], [], [], ["Failed"], id="one-failed-and-is-tried-again"),
        pytest.param([vllm("n1"), vllm("n2")], [pod_on("n1", succeeded)], ["n2"], [], ["Ready", "Waiting"], id="a-node-comes-later"),
        pytest.param([vllm("n2")], [pod_on("n1", running), pod_on("n2", succeeded)], [], ["n1"], ["Ready"], id="a-node-goes"),
        pytest.param([vllm("n1")], [old_pod()], ["n1"], ["n1"], ["Waiting"], id="of-another-version"),
        pytest.param([vllm("n1")], [pod_on("n1", running, ending=True)], [], [], ["Waiting"], id="its-name-is-taken-until-it-is-gone"),
        pytest.param([vllm("n1")], [pod_on("n1", evicted)], [], [], ["Failed"], id="kubelet-gave-up"),
        pytest.param([vllm("n1")], [pod_on("n1", evicted, age=RETRY_SECONDS)], [], ["n1"], ["Failed"], id="kubelet-gave-up-a-while-ago"),
    ],
)
def test_what_is_made_and_deleted(audited: list[Audited], pods: list[Pod], create: list[str], delete: list[str], states: list[str]) -> None:
    found = planned(audited, pods)
    assert nodes_of(found.create) == create
    assert [pod.annotations[NODE_ANNOTATION] for pod in found.delete] == delete
    assert [each.state for each in found.nodes] == states
    assert found.done is all(state == "Ready" for state in states)


def test_a_failure_says_why_and_so_does_a_pod_that_finds_no_room() -> None:
    (broken,) = planned([vllm()], [pod_on("n1", failed)]).nodes
    assert (broken.reason, broken.message) == ("Corrupt", "model.safetensors: its SHA-256 is another")
    (ended_,) = planned([vllm()], [pod_on("n1", evicted)]).nodes
    assert (ended_.reason, ended_.message) == ("Evicted", "the node was low on memory")
    (waits,) = planned([vllm()], [pod_on("n1", unscheduled)]).nodes
    assert waits.message.endswith("no room")


def test_a_pod_that_is_done_counts_though_those_of_its_node_are_let_in_otherwise_now() -> None:
    done = pod_on("n1", succeeded)
    assert planned([vllm(serviceAccountName="other")], [done]).done
    begun_ = pod_on("n1", running)
    changed = planned([vllm(serviceAccountName="other")], [begun_])
    assert (nodes_of(changed.create), [pod.uid for pod in changed.delete]) == (["n1"], [begun_.uid])


def test_asked_again_it_says_the_same() -> None:
    first = planned([vllm("n1"), vllm("n2")], [])
    pods = [made(each, running(each)) for each in first.create]
    again = planned([vllm("n2"), vllm("n1")], pods)
    assert (again.create, again.delete) == ((), ())


def test_a_claim_is_filled_once_from_a_node_of_one_of_the_pods() -> None:
    resource = cache(claim="models")
    audited = [vllm("n3"), vllm("n2")]
    (one,) = planned(audited, [], resource).create
    assert allowed(one) == ["n2", "n3"]
    mounts = one["spec"]["containers"][0]["volumeMounts"]
    claims = {each["name"] for each in one["spec"]["volumes"] if "persistentVolumeClaim" in each}
    assert [each.get("readOnly", False) for each in mounts if each["name"] in claims] == [False]
    # A node that comes later, and is first by name, changes nothing; nor does it when the nodes are gone and the files are there.
    more = planned([vllm("n1"), *audited], [made(one, running(one))], resource)
    assert (more.create, more.delete) == ((), ())
    assert planned([vllm("n1")], [made(one, succeeded(one))], resource).done
    # It cannot come where the pods are now: it goes, and its name is free for another one after that.
    moved = planned([vllm("n1")], [made(one)], resource)
    assert (moved.create, len(moved.delete)) == ((), 1)
    assert [allowed(each) for each in planned([vllm("n1")], [], resource).create] == [["n1"]]


def test_the_pod_of_a_claim_is_told_of_with_the_node_that_it_came_to() -> None:
    resource = cache(claim="models")
    (one,) = planned([vllm("n2"), vllm("n3")], [], resource).create
    assert [each.node for each in planned([vllm("n2"), vllm("n3")], [made(one)], resource).nodes] == [""]
    bound = {**one, "spec": {**one["spec"], "nodeName": "n3"}}
    found = planned([vllm("n2"), vllm("n3")], [made(bound, running(one))], resource)
    assert [(each.node, each.state) for each in found.nodes] == [("n3", "Fetching")]
    left = planned([vllm("n2")], [made(bound, running(one))], resource)
    assert len(left.delete) == 1


def allowed(body_: Mapping[str, Any]) -> list[str]:
    """The nodes that it may come to: Kubernetes takes one in each term."""
    terms = body_["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    found = []
    for term in terms:
        (only,) = term["matchFields"]
        (name,) = only["values"]
        found.append(name)
    return found


def an_agent(node: str, *, ready: bool) -> Pod:
    conditions = [{"type": "Ready", "status": str(ready)}]
    metadata = {"namespace": "ic", "name": f"agent-{node}", "uid": node}
    return read_pod({"metadata": metadata, "spec": {"nodeName": node}, "status": {"conditions": conditions}})


NO_AGENT_READY: Agents = {"n1": an_agent("n1", ready=False)}


@pytest.mark.parametrize(
    ("delivery", "agents", "expected"),
    [
        pytest.param("Agent", None, ["n1", "n2"], id="nothing-known-of-agents"),
        pytest.param("Agent", NO_AGENT_READY, ["n1"], id="a-pod-that-finds-none-fetches-for-itself"),
        pytest.param("Agent", {"n2": None}, ["n2"], id="was-there-a-moment-ago"),
        pytest.param("Agent", {}, [], id="none-at-all"),
        pytest.param("HostPath", NO_AGENT_READY, ["n1", "n2"], id="pods-there-would-wait-as-well"),
    ],
)
def test_nodes_without_an_agent_are_not_waited_for(delivery: Delivery, agents: Agents | None, expected: list[str]) -> None:
    assert list(where([vllm("n2"), vllm("n1")], delivery, agents)) == expected


def test_where_no_node_has_an_agent_pods_are_replaced_at_once() -> None:
    found = planned([vllm("n1")], [pod_on("n1", running)], agents={})
    assert (found.done, found.create, len(found.delete)) == (True, (), 1)


@pytest.mark.parametrize(
    ("agents", "status", "said"),
    [
        pytest.param(NO_AGENT_READY, running, "the agent of its node, pod agent-n1, is not Ready", id="agent-not-ready"),
        pytest.param({"n1": None}, running, "its node has no agent", id="agent-is-being-replaced"),
        pytest.param({"n1": an_agent("n1", ready=True)}, running, "", id="agent-is-ready"),
        pytest.param(NO_AGENT_READY, unscheduled, "no room", id="is-not-scheduled"),
        pytest.param(NO_AGENT_READY, lambda _: None, "the agent of its node, pod agent-n1, is not Ready", id="has-not-begun"),
    ],
)
def test_a_node_that_is_waited_for_says_what_for(agents: Agents, status: Told, said: str) -> None:
    pod = pod_on("n1", status)
    (one,) = planned([vllm()], [pod], agents=agents).nodes
    assert (one.pod, one.message) == (pod.name, f"pod {pod.name}: {said}" if said else "")


def test_a_pod_that_fails_again_and_again_is_made_later_and_later_and_counts_as_failed_meanwhile() -> None:
    failures: Mapping[str, Failure] = {}
    waited = []
    for number in range(7):
        gone = replace(pod_on("n1", evicted), uid=f"try-{number}")
        found = planned([vllm()], [gone], failures=failures)
        failures = planned([vllm()], [gone], failures=found.failures).failures
        waited.append(failures["n1"].patience)
        assert len(planned([vllm()], [replace(gone, created=NOW - waited[-1])], failures=failures).delete) == 1
        assert planned([vllm()], [replace(gone, created=NOW - waited[-1] + 1)], failures=failures).delete == ()
        for pods in ([], [pod_on("n1", running)]):
            (again,) = planned([vllm()], pods, failures=failures).nodes
            assert (again.state, again.reason, again.message) == ("Failed", "Evicted", "the node was low on memory")
    assert waited == [RETRY_SECONDS * 2**number for number in range(5)] + [LONGEST_RETRY_SECONDS] * 2
    done = planned([vllm()], [pod_on("n1", succeeded)], failures=failures)
    assert (done.done, done.failures) == (True, {})


def test_when_nothing_is_to_be_fetched_all_go() -> None:
    pods = [pod_on("n1", succeeded), pod_on("n2", running), pod_on("n3", running, ending=True)]
    assert clearing(pods).delete == tuple(pods[:2])


def test_such_a_pod_meets_pod_security_restricted_and_nobody_puts_anything_into_it() -> None:
    like = vllm(
        tolerations=[{"key": "gpu"}],
        serviceAccountName="irsa",
        imagePullSecrets=[{"name": "pull"}],
        securityContext={"fsGroup": 7},
        priorityClassName="high",
    )
    one = body(like=like, resource=cache(count=2))
    spec = one["spec"]
    assert (len(spec["initContainers"]), len(spec["containers"])) == (1, 1)
    for each in (*spec["initContainers"], *spec["containers"]):
        security = each["securityContext"]
        assert (security["runAsNonRoot"], security["allowPrivilegeEscalation"], security["capabilities"]) == (
            True,
            False,
            {"drop": ["ALL"]},
        )
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert set(each["resources"]["limits"]) == {"cpu", "memory"}
        assert each["resources"]["requests"]["cpu"] == "100m"
        assert each.get("restartPolicy") is None
    assert not any("hostPath" in each for each in spec["volumes"])
    assert spec["securityContext"] == {"fsGroup": 7, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert (spec["automountServiceAccountToken"], spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == (False, "OnFailure", 10)
    assert (spec["serviceAccountName"], spec["imagePullSecrets"]) == ("irsa", [{"name": "pull"}])
    assert spec["tolerations"] == [{"key": "gpu"}, {"operator": "Exists", "effect": "NoSchedule"}]
    assert spec["priorityClassName"] == "high"
    annotations = one["metadata"]["annotations"]
    assert (annotations[INJECT_ANNOTATION], annotations["sidecar.istio.io/inject"], annotations["linkerd.io/inject"]) == (
        "false",
        "false",
        "disabled",
    )
    assert isinstance(inject(one, cache(), AGENT, "token"), Unchanged)
    assert is_prefetching(one)


def test_its_name_is_that_of_an_object_however_the_resource_is_called() -> None:
    long = replace(cache(), name=f"{'a' * 39}.{'b' * 200}")
    name = body(resource=long)["metadata"]["name"]
    assert len(name) <= 63
    assert "." not in name
    assert "--" not in name


@pytest.mark.parametrize(
    ("state", "artifacts", "told"),
    [
        pytest.param(State(active="v1"), {"delivery": "Agent"}, True, id="begins"),
        pytest.param(PRELOADING, {"nodes": {"wanted": 2, "ready": 0}}, False, id="goes-on"),
        pytest.param(PRELOADING, {"delivery": "Agent"}, True, id="could-not-begin-before"),
        pytest.param(State("Preloading", active="v1", updating="v0"), {"nodes": {"wanted": 2, "ready": 0}}, True, id="of-another-version"),
    ],
)
def test_its_start_is_told_until_the_status_tells_of_it(state: State, artifacts: dict[str, Any], told: bool) -> None:
    resource = cache(status={"artifacts": artifacts})
    said = begun(resource, state, planned([vllm("n1"), vllm("n2")], [pod_on("n1", running)]))
    assert [each.message for each in said] == (["version 'v2' is fetched to 2 nodes"] if told else [])


def test_its_end_is_told_with_bytes_and_seconds_while_the_status_does_not_know() -> None:
    done = planned([vllm("n1")], [pod_on("n1", succeeded, age=41.0)])
    (said,) = ended(cache(), PRELOADING, done, {"n1": {"totalBytes": 7}})
    assert (said.reason, said.message) == ("PrefetchDone", "7 bytes of version 'v2' are on 1 node after 41 s")
    assert ended(cache(), PRELOADING, done, {})[0].message == "version 'v2' is on 1 node after 41 s"
    assert ended(cache(), State("Stable", active="v1"), done, {}) == ()


def test_what_is_fetched_to_a_claim_is_told_so() -> None:
    resource = cache(claim="models")
    (one,) = planned([vllm("n1")], [], resource).create
    done = planned([vllm("n1")], [made(one, succeeded(one), age=41.0)], resource)
    assert [each.message for each in begun(resource, State(active="v1"), done)] == ["version 'v2' is fetched to the claim"]
    assert ended(resource, PRELOADING, done, {})[0].message == "version 'v2' is on the claim after 41 s"


@pytest.mark.parametrize(
    ("made_for", "wanted", "other"),
    [
        pytest.param(cache("v2"), cache("v2", status={}), False, id="its-own"),
        pytest.param(cache("v1", status={}), cache("v2", status={}), True, id="of-the-version-before"),
        pytest.param(cache("v1", status={}), cache("v2", status=AMID), False, id="while-the-next-is-fetched-ahead"),
        pytest.param(cache("v1", count=0), cache("v2", status={}), False, id="none-at-all"),
    ],
)
def test_a_pod_that_gets_no_sidecar_is_known_by_its_files(made_for: Resource, wanted: Resource, other: bool) -> None:
    container = {"name": "vllm", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model=/models0"]}
    plain = {"metadata": {"name": "a"}, "spec": {"hostNetwork": True, "containers": [container]}}
    outcome = inject(plain, made_for, AGENT, "token")
    assert isinstance(outcome, Refused)
    assert RealInjector(AGENT).has_other_files(outcome.pod or plain, wanted) is other
