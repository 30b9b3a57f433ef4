"""Has pods replaced as `audit.repair` decides: reads their workloads, rolls a template, or evicts one pod."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from inference_cache_contract.pod import ROLLOUT_ANNOTATION
from inference_cache_operator import errors
from inference_cache_operator.audit.images import pull_failure
from inference_cache_operator.audit.pods import Owner, Pod, read_pod
from inference_cache_operator.audit.repair import Evict, Means, Repair, Roll, Wait, Ward, confirmed, repair
from inference_cache_operator.audit.standing import Audited
from inference_cache_operator.audit.workloads import Workload, read_workload, trigger_value
from inference_cache_operator.cluster import paths
from inference_cache_operator.controller.collaborators import Collaborators
from inference_cache_operator.resource import Resource
from inference_cache_operator.selecting import selector_text
from inference_cache_operator.versions.step import Decision
from inference_cache_operator.versions.telling import Said

ROLLOUT_MANAGER: Final = "inference-cache-rollout"
_ROLLED: Final = ("Deployment", "StatefulSet", "DaemonSet")
_FIELD_IS_ANOTHERS: Final = "Apply failed with"
"""How the API server begins to say that other managers own what was applied; else the workload is another one by now, or was changed."""
_log = logging.getLogger(__name__)


class Repairer:
    def __init__(self, collaborators: Collaborators) -> None:
        self._with = collaborators
        self._rolled: dict[str, str] = {}
        """By workload uid, what we wrote into its template; where it is gone, somebody takes it out again."""
        self._evicting: set[str] = set()
        """Workload uids whose templates somebody else owns."""

    async def plan(self, resource: Resource, audited: Sequence[Audited], decision: Decision) -> list[Repair]:
        """One for each owner that has pods to be replaced. Raises ClusterError."""
        if not any(each.to_replace for each in audited):
            return []
        wards = [ward for ward in await self._wards(resource, audited) if any(each.to_replace for each in ward.pods)]
        means = await self._means(resource, audited, decision)
        planned = [(ward, each) for ward in wards if (each := repair(ward, means)) is not None]
        if all(isinstance(each, Wait) for _, each in planned):
            return [each for _, each in planned]
        pods = await self._pods(resource)
        return [each if isinstance(each, Wait) else confirmed(ward, means, pods) for ward, each in planned]

    async def carry_out(self, resource: Resource, repairs: Iterable[Repair]) -> list[Said]:
        """What was done. Raises ClusterError."""
        said = []
        for each in repairs:
            if isinstance(each, Roll) and await self._roll(resource, each):
                said.append(
                    Said("WorkloadRolled", f"{each.workload.kind} {each.workload.name} rolls, for its pods to get the sidecar as it is now")
                )
            elif isinstance(each, Evict) and await self._evict(resource, each.pod):
                said.append(Said("PodEvicted", f"pod {each.pod.name}, for its successor to get the sidecar as it is now"))
        return said

    async def _pods(self, resource: Resource) -> dict[str, Pod]:
        listed = await self._with.cluster.list(paths.pods(resource.namespace), selector_text(resource.selector))
        return {pod.uid: pod for pod in map(read_pod, listed)}

    async def _means(self, resource: Resource, audited: Sequence[Audited], decision: Decision) -> Means:
        now = self._with.now()
        image = (resource.spec.get("sidecar") or {}).get("image") or self._with.default_image
        return Means(
            trigger=resource.rollout.trigger,
            may_roll=decision.may_roll,
            version=resource.version,
            injection=self._with.injector.digest(resource),
            started_at=decision.state.rollout.started_at or now,
            now=now,
            webhook_reached=await self._with.webhook_reached(),
            image_fails=pull_failure([each.pod for each in audited], image, now) is not None,
            user_seconds=self._with.pace.user,
        )

    async def _wards(self, resource: Resource, audited: Sequence[Audited]) -> list[Ward]:
        by_owner: dict[tuple[str, str], list[Audited]] = defaultdict(list)
        found: dict[tuple[str, str], Workload | None] = {}
        sets: dict[str, Owner | None] = {}
        for each in audited:
            owner = await self._top(each.pod, sets)
            key = ("", each.pod.uid) if owner is None else (owner.kind, owner.name)
            by_owner[key].append(each)
            if key not in found:
                found[key] = await self._workload(resource.namespace, owner)
        return [self._ward(resource, key, pods, found[key]) for key, pods in by_owner.items()]

    def _ward(self, resource: Resource, key: tuple[str, str], pods: Sequence[Audited], workload: Workload | None) -> Ward:
        owner = " ".join(key) if key[0] else ""
        return Ward(pods, owner, workload, evicting=workload is not None and self._goes_by_eviction(resource, workload))

    def _goes_by_eviction(self, resource: Resource, workload: Workload) -> bool:
        value = trigger_value(workload, resource.version, self._with.injector.digest(resource))
        taken_out = self._rolled.get(workload.uid) == value and workload.triggered != value
        return taken_out or workload.uid in self._evicting

    async def _top(self, pod: Pod, sets: dict[str, Owner | None]) -> Owner | None:
        """The Deployment behind a ReplicaSet, else the pod's controller itself."""
        owner = pod.owner
        if owner is None or owner.kind != "ReplicaSet" or not owner.api_version.startswith("apps/"):
            return owner
        if owner.uid not in sets:
            sets[owner.uid] = await self._deployment(pod.namespace, owner)
        return sets[owner.uid]

    async def _deployment(self, namespace: str, owner: Owner) -> Owner:
        try:
            body = await self._with.cluster.get(paths.workload("ReplicaSet", namespace, owner.name))
        except errors.NotThere:
            return owner
        references = (body.get("metadata") or {}).get("ownerReferences") or ()
        above = next((each for each in references if each.get("controller")), None)
        return owner if above is None else Owner(above["kind"], above["name"], above["uid"], above.get("apiVersion") or "")

    async def _workload(self, namespace: str, owner: Owner | None) -> Workload | None:
        if owner is None or owner.kind not in _ROLLED or not owner.api_version.startswith("apps/"):
            return None
        try:
            return read_workload(owner.kind, await self._with.cluster.get(paths.workload(owner.kind, namespace, owner.name)))
        except errors.NotThere:
            return None

    async def _roll(self, resource: Resource, roll: Roll) -> bool:
        workload = roll.workload
        body = {
            "apiVersion": "apps/v1",
            "kind": workload.kind,
            "metadata": {
                "name": workload.name,
                "namespace": workload.namespace,
                "uid": workload.uid,
                "resourceVersion": workload.body["metadata"].get("resourceVersion"),
            },
            "spec": {"template": {"metadata": {"annotations": {ROLLOUT_ANNOTATION: roll.value}}}},
        }
        try:
            await self._with.cluster.apply(paths.workload(workload.kind, workload.namespace, workload.name), body, ROLLOUT_MANAGER)
        except errors.Conflicting as error:
            if not error.said.startswith(_FIELD_IS_ANOTHERS):
                _log.info("%s: %s %s was changed meanwhile: %s", resource.cache_name, workload.kind, workload.name, error.said)
                return False
            _log.info("%s: %s %s goes pod by pod: %s", resource.cache_name, workload.kind, workload.name, error.said)
            self._evicting.add(workload.uid)
            return False
        self._rolled[workload.uid] = roll.value
        return True

    async def _evict(self, resource: Resource, pod: Pod) -> bool:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        try:
            await self._with.cluster.create(paths.eviction(pod.namespace, pod.name), body)
        except (errors.NotThere, errors.Conflicting):
            return False
        except errors.TooMany as error:
            _log.info("%s: %s stays for now: %s", resource.cache_name, pod.name, error.said)
            return False
        return True
