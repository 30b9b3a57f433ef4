"""How far the pods are that fetch ahead, node by node. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from inference_cache_operator.audit.fetches import prefetch_of, shortened
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.audit.unstarted import kept_from_starting
from inference_cache_operator.prefetch.agents import Agents, complaint
from inference_cache_operator.prefetch.pods import node_name

RETRY_SECONDS: Final = 30.0
LONGEST_RETRY_SECONDS: Final = 600.0
NodeState = Literal["Failed", "Fetching", "Waiting", "Ready"]
ORDER: Final[tuple[NodeState, ...]] = ("Failed", "Fetching", "Waiting", "Ready")
"""What somebody wants to know first."""


@dataclass(frozen=True, slots=True)
class OnNode:
    node: str
    """Empty where the files lie on a claim and no node is chosen yet."""
    state: NodeState
    reason: str = ""
    message: str = ""
    pod: str = ""
    """That fetches there."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Pods of one node that kubelet has given up on, one after the other."""

    uid: str
    """The last one's."""
    told: OnNode
    times: int

    @property
    def patience(self) -> float:
        """Seconds from the last one's making until the next one is made."""
        return min(RETRY_SECONDS * 2.0 ** min(self.times - 1, 10), LONGEST_RETRY_SECONDS)


def stands(node: str, pod: Pod | None, agents: Agents | None) -> OnNode:
    """`node` is empty, and `agents` are None, where the files lie on a claim."""
    if pod is None:
        return OnNode(node, "Waiting")
    fetch, name = prefetch_of(pod), node or node_name(pod)
    match fetch.state:
        case "done":
            return OnNode(name, "Ready", pod=pod.name)
        case "failed":
            return OnNode(name, "Failed", fetch.reason, fetch.message, pod.name)
        case "running":
            return OnNode(name, "Fetching", "", _of_agent(pod, agents, name), pod.name)
        case "waiting":
            return OnNode(name, "Waiting", "", shortened(kept_from_starting([pod])) or _of_agent(pod, agents, name), pod.name)


def remembered(before: Mapping[str, Failure], pods: Mapping[str, Pod | None]) -> dict[str, Failure]:
    """By node as `pods`; what failed on a node is forgotten when the files are there."""
    found = dict[str, Failure]()
    for node, pod in pods.items():
        known = before.get(node)
        if pod is not None and has_failed(pod) and (known is None or known.uid != pod.uid):
            found[node] = Failure(pod.uid, stands(node, pod, None), 1 if known is None else known.times + 1)
        elif known is not None and (pod is None or prefetch_of(pod).state != "done"):
            found[node] = known
    return found


def tried_again(now: OnNode, failure: Failure | None) -> OnNode:
    """What has failed counts as failed until it is done, as a container does that is tried again: it is told once."""
    if failure is None or now.state not in ("Waiting", "Fetching"):
        return now
    return replace(now, state="Failed", reason=failure.told.reason, message=failure.told.message)


def has_failed(pod: Pod) -> bool:
    """Kubelet has given it up."""
    return (pod.body.get("status") or {}).get("phase") == "Failed"


def _of_agent(pod: Pod, agents: Agents | None, node: str) -> str:
    why = complaint(agents, node)
    return f"pod {pod.name}: {why}" if why else ""
