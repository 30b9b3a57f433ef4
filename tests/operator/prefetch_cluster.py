"""A cluster that is a dict of pods, and rounds of fetching ahead on it."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.operator.prefetch_scenes import AGENT, NOW, cache, made, vllm

from inference_cache_operator import errors
from inference_cache_operator.audit.standing import Audited
from inference_cache_operator.cluster import paths
from inference_cache_operator.prefetch.outcome import Prefetched
from inference_cache_operator.prefetch.pods import NODE_ANNOTATION
from inference_cache_operator.prefetch.prefetcher import Prefetcher
from inference_cache_operator.resource import Resource
from inference_cache_operator.versions.state import State

BUMPED = State("Preloading", active="v1", updating="v2")
PODS = [vllm("n1"), vllm("n2")]
Told = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class PodCluster:
    """Pods by name; `refusal` is what the API server has against new ones, `hostile` against hostPath, `closed` against any volumes."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.agents: list[dict[str, Any]] | None = []
        self.refusal: errors.ClusterError | None = None
        self.hostile: errors.ClusterError | None = None
        self.closed: errors.ClusterError | None = None
        self.lists = 0
        self.probes = 0

    async def list(self, path: str, labels: str = "", **_: Any) -> list[dict[str, Any]]:
        if path == paths.pods("ic"):
            assert labels == "app.kubernetes.io/name=inference-cache,app.kubernetes.io/component=agent"
            if self.agents is None:
                raise errors.NotAllowed("GET")
            return self.agents
        self.lists += 1
        name, value = labels.split("=")
        return [each for each in self.pods.values() if each["metadata"]["labels"].get(name) == value]

    async def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        assert path == paths.pods("llm")
        if dry_run:
            self.probes += 1
            refusal = self.hostile if body["spec"]["volumes"] else self.closed
            if refusal is not None:
                raise refusal
            return dict(body)
        if self.refusal is not None:
            raise self.refusal
        if body["metadata"]["name"] in self.pods:
            raise errors.Conflicting("POST")
        self.pods[body["metadata"]["name"]] = dict(made(body).body)
        return dict(body)

    async def delete(self, path: str, options: Mapping[str, Any]) -> dict[str, Any]:
        gone = self.pods.pop(path.rpartition("/")[2], None)
        if gone is None or gone["metadata"]["uid"] != options["preconditions"]["uid"]:
            raise errors.NotThere("DELETE")
        return gone

    def tell(self, told: Told, *nodes: str) -> None:
        """What kubelet says of the pods on these nodes, or of all."""
        for pod in self.pods.values():
            if not nodes or pod["metadata"]["annotations"][NODE_ANNOTATION] in nodes:
                pod["status"] = dict(told(pod))


async def look(
    cluster: PodCluster, resource: Resource | None = None, state: State = BUMPED, pods: list[Audited] = PODS, prefetcher: Any = None
) -> Prefetched:
    """By a controller that has just started, unless one is given."""
    prefetcher = prefetcher or Prefetcher(cluster, AGENT, now=lambda: NOW)  # type: ignore[arg-type]
    found: Prefetched = await prefetcher.look(resource or cache(), state, pods)
    return found


def states(found: Prefetched) -> dict[str, str]:
    return {each.node: each.state for each in found.nodes}


def agent_pod(node: str) -> dict[str, Any]:
    metadata = {"namespace": "ic", "name": f"agent-{node}", "uid": node}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"podIP": "10.0.0.1"}}
