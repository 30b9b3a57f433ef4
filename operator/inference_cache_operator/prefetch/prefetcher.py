"""One round of fetching ahead: look, decide, act, tell. Called by `controller.reconciling`, before it decides about versions."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.audit.standing import Audited
from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.injection.artifacts import Artifact, artifacts_of
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.injection.delivery import delivery_of
from inference_cache_operator.injection.fetching import prefetching
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.prefetch import acting, deciding
from inference_cache_operator.prefetch.agents import AgentList, Agents
from inference_cache_operator.prefetch.deciding import Seen
from inference_cache_operator.prefetch.delivering import DeliveryProbe
from inference_cache_operator.prefetch.figures import AgentClient, FigureBook
from inference_cache_operator.prefetch.nodes import Failure, OnNode
from inference_cache_operator.prefetch.outcome import Figures, Found, Prefetched, first_failure, shown
from inference_cache_operator.prefetch.pods import PREFETCH_LABEL, Content
from inference_cache_operator.prefetch.telling import begun, ended
from inference_cache_operator.resource import Resource
from inference_cache_operator.versions.state import State


class Prefetcher:
    """`namespace` is the operator's own, where the agents' pods are."""

    def __init__(
        self,
        cluster: Cluster,
        defaults: SidecarDefaults,
        agents: AgentClient | None = None,
        namespace: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._defaults = defaults
        self._probe = DeliveryProbe(cluster, defaults)
        self._agents = AgentList(cluster, namespace)
        self._figures = FigureBook(agents)
        self._failures: dict[str, tuple[str, Mapping[str, Failure]]] = {}
        """By resource: of what content, and by node."""
        self._without: set[str] = set()
        """Resources that have no such pod, and get none: there are no agents."""
        self._now = now

    async def look(self, resource: Resource, state: State, audited: Sequence[Audited]) -> Prefetched:
        """Raises ClusterError, NotLeading."""
        if not resource.artifacts and "artifacts" not in resource.status:
            return Prefetched()
        found = await self._probe.found(resource) if resource.artifacts else Found()
        pods = await self._listed(resource)
        need = deciding.need(resource, state, audited) if found.delivery != "Pod" and self._defaults.artifacts_agent else "none"
        match need:
            case "now":
                return replace(await self._ahead(resource, state, audited, pods), found=found)
            case "over":
                return Prefetched(found=found)
            case "none":
                self._figures.forget(resource.uid)
                self._failures.pop(resource.uid, None)
                await acting.carry_out(self._cluster, resource.namespace, deciding.clearing(pods))
                return Prefetched(found=found)

    async def _ahead(self, resource: Resource, state: State, audited: Sequence[Audited], pods: Sequence[Pod]) -> Prefetched:
        try:
            artifacts = artifacts_of(resource, resource.version)
            content = Content(*prefetching(artifacts, resource, self._defaults))
        except Refusal as refusal:
            return Prefetched(preloaded=False, problem=OnNode("", "Failed", refusal.reason, refusal.message))
        delivery = delivery_of(resource, self._defaults, {})
        agents = None if delivery == "Claim" else await self._agents.look()
        seen = Seen(pods, self._now(), agents, self._failed_before(resource.uid, content.digest))
        plan = deciding.plan(resource, content, deciding.where(audited, delivery, agents), seen)
        self._failures[resource.uid] = content.digest, plan.failures
        refused = await acting.carry_out(self._cluster, resource.namespace, plan)
        nodes = [_or_refused(each, refused) for each in plan.nodes]
        figures = await self._figures_of(resource, artifacts, nodes, agents or {}, last=plan.done)
        said = begun(resource, state, plan) + (ended(resource, state, plan, figures) if plan.done else ())
        return Prefetched(plan.done, nodes, figures=figures, problem=first_failure(nodes), said=said)

    async def _figures_of(
        self, resource: Resource, artifacts: Sequence[Artifact], nodes: Sequence[OnNode], agents: Agents, *, last: bool
    ) -> Mapping[str, Figures]:
        asked = {each.node: agents.get(each.node) for each in shown(nodes)} if resource.artifact_claim is None else {}
        return await self._figures.of(resource.uid, resource.namespace, [each.tree for each in artifacts], asked, last=last)

    def _failed_before(self, uid: str, digest: str) -> Mapping[str, Failure]:
        known, failures = self._failures.get(uid, ("", {}))
        return failures if known == digest else {}

    async def _listed(self, resource: Resource) -> list[Pod]:
        if resource.uid in self._without:
            return []
        listed = await self._cluster.list(paths.pods(resource.namespace), f"{PREFETCH_LABEL}={resource.uid}")
        if not listed and not self._defaults.artifacts_agent:
            self._without.add(resource.uid)
        return list(map(read_pod, listed))


def _or_refused(one: OnNode, refused: OnNode | None) -> OnNode:
    """What is only put off does not hide a failure."""
    if refused is None or refused.node != one.node or (refused.state == "Waiting" and one.state == "Failed"):
        return one
    return refused
