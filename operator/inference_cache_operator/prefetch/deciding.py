"""Which pods are to fetch ahead, and whether the files are where they must be before pods are replaced. Pure; asked in every round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from inference_cache_operator.audit.fetches import prefetch_of
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.audit.standing import Audited, Standing
from inference_cache_operator.injection.delivery import Delivery
from inference_cache_operator.prefetch.agents import Agents
from inference_cache_operator.prefetch.nodes import Failure, OnNode, has_failed, remembered, stands, tried_again
from inference_cache_operator.prefetch.pods import Content, Place, claim_place, content_of, may_run, node_of, places, prefetch_pod
from inference_cache_operator.resource import Resource
from inference_cache_operator.versions.state import State

Need = Literal["none", "now", "over"]
"""`over`: it is done, and pods of the new version come; what they need on nodes of their own they fetch themselves."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a round finds."""

    pods: Sequence[Pod]
    """All of the resource that fetch ahead, of whatever version."""
    now: float
    agents: Agents | None = None
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """As the plan of the round before has them, of the same content."""


@dataclass(frozen=True, slots=True)
class Plan:
    create: tuple[dict[str, Any], ...] = ()
    delete: tuple[Pod, ...] = ()
    nodes: tuple[OnNode, ...] = ()
    """Those that are to have the files, by name."""
    made: tuple[Pod, ...] = field(default=(), repr=False)
    """The pods that count, as they are."""
    failures: Mapping[str, Failure] = field(default_factory=dict, repr=False)

    @property
    def done(self) -> bool:
        return all(each.state == "Ready" for each in self.nodes)


def need(resource: Resource, state: State, audited: Sequence[Audited]) -> Need:
    """Nothing where nobody has to be replaced: a first version's pods fetch for themselves, and so do those of one that none runs."""
    wanted = resource.version
    if not resource.artifacts or state.active in (None, wanted):
        return "none"
    if state.phase in ("Updating", "Draining") and state.updating == wanted:
        return "over"
    return "now" if any(each.pod.version != wanted for each in _staying(audited)) else "none"


def where(audited: Sequence[Audited], delivery: Delivery, agents: Agents | None) -> dict[str, Place]:
    """By node; one, of no node, where the files lie on a claim, which every node sees then.

    A node without an agent is not waited for: a pod there that finds none fetches for itself. One that may have its files only from the
    node's folder would wait as well.
    """
    pods = [each.pod for each in _staying(audited)]
    if delivery == "Claim":
        return claim_place(pods)
    everywhere = agents is None or delivery == "HostPath"
    return {node: place for node, place in sorted(places(pods).items()) if everywhere or node in (agents or ())}


def plan(resource: Resource, content: Content, wanted: Mapping[str, Place], seen: Seen) -> Plan:
    bodies = {node: prefetch_pod(resource, content, place) for node, place in wanted.items()}
    kept = {node: _of_place(seen.pods, content.digest, wanted[node], body["metadata"]["name"]) for node, body in bodies.items()}
    failures = remembered(seen.failures, kept)
    made = tuple(pod for pod in kept.values() if pod is not None)
    staying = {pod.uid for pod in made} - {pod.uid for node, pod in kept.items() if pod and _is_over(pod, failures.get(node), seen.now)}
    taken = {pod.name for pod in seen.pods}
    return Plan(
        create=tuple(body for node, body in bodies.items() if kept[node] is None and body["metadata"]["name"] not in taken),
        delete=tuple(pod for pod in seen.pods if not pod.ending and pod.uid not in staying),
        nodes=tuple(tried_again(stands(node, pod, seen.agents), failures.get(node)) for node, pod in sorted(kept.items())),
        made=made,
        failures=failures,
    )


def clearing(pods: Sequence[Pod]) -> Plan:
    """Nothing is to be fetched."""
    return Plan(delete=tuple(pod for pod in pods if not pod.ending))


def _staying(audited: Sequence[Audited]) -> list[Audited]:
    return [each for each in audited if each.standing is not Standing.EXCLUDED and not each.pod.ending]


def _of_place(pods: Sequence[Pod], digest: str, place: Place, name: str) -> Pod | None:
    """One that is done counts whatever let it in."""
    ours = [pod for pod in pods if content_of(pod) == digest and node_of(pod) == place.node and not pod.ending]
    done = next((pod for pod in ours if prefetch_of(pod).state == "done"), None)
    return done or next((pod for pod in ours if pod.name == name and may_run(pod, place)), None)


def _is_over(pod: Pod, failure: Failure | None, now: float) -> bool:
    """A pod that kubelet has given up on is told of for a while, and then made again."""
    return failure is not None and has_failed(pod) and now - pod.created >= failure.patience
