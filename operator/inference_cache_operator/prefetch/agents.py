"""Which nodes have an agent: the pods of its DaemonSet, by node."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from inference_cache_operator import errors
from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.prefetch.pods import node_name

AGENT_LABELS: Final = "app.kubernetes.io/name=inference-cache,app.kubernetes.io/component=agent"
"""Of the agents' pods, in the operator's own namespace."""
AWAY_SECONDS: Final = 30.0
"""Between one pod of a DaemonSet and the next there is none for a moment: its node still has an agent."""
Agents = Mapping[str, Pod | None]
"""By node. None: it was there a moment ago."""


class AgentList:
    def __init__(self, cluster: Cluster, namespace: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._clock = clock
        self._seen: dict[str, float] = {}

    async def look(self) -> Agents | None:
        """None: nothing is known of them. Raises nothing."""
        if not self._namespace:
            return None
        try:
            listed = await self._cluster.list(paths.pods(self._namespace), AGENT_LABELS, cached=True)
        except errors.ClusterError:
            return None
        found, now = by_node(map(read_pod, listed)), self._clock()
        self._seen |= dict.fromkeys(found, now)
        self._seen = {node: at for node, at in self._seen.items() if now - at < AWAY_SECONDS}
        return {**dict.fromkeys(self._seen), **found}


def by_node(pods: Iterable[Pod]) -> dict[str, Pod]:
    """Where one follows another, the one that goes on."""
    known = sorted(pods, key=lambda pod: (not pod.ending and not pod.ended, pod.ready))
    return {node: pod for pod in known if (node := node_name(pod))}


def complaint(agents: Agents | None, node: str) -> str:
    """What keeps the agent of a node from fetching; empty where nothing is known of it."""
    if agents is None:
        return ""
    agent = agents.get(node)
    if agent is None:
        return "its node has no agent"
    return "" if agent.ready and not agent.ending else f"the agent of its node, pod {agent.name}, is not Ready"
