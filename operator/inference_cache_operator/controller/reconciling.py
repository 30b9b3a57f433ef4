"""Brings one resource a step on: look, decide, write the status, act. Called by the workers of `running`, one resource at a time."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_contract.configuration import Configuration, FlushOrder, digest
from inference_cache_contract.pod import API_VERSION, KIND
from inference_cache_operator import errors
from inference_cache_operator.audit.images import PullFailure, pull_failure
from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.audit.standing import Audited
from inference_cache_operator.cluster import paths
from inference_cache_operator.controller import configuring, observing, releasing
from inference_cache_operator.controller.collaborators import Collaborators
from inference_cache_operator.controller.index import Key
from inference_cache_operator.controller.nudging import Nudges
from inference_cache_operator.controller.pacing import Stillness, first_pause, pause
from inference_cache_operator.controller.repairing import Repairer
from inference_cache_operator.events import event
from inference_cache_operator.prefetch.outcome import Prefetched
from inference_cache_operator.prefetch.pods import is_prefetching
from inference_cache_operator.resource import Resource, read_resource
from inference_cache_operator.selecting import selector_text
from inference_cache_operator.status import Observed, status_of
from inference_cache_operator.status_warnings import warnings
from inference_cache_operator.versions.state import State, read_state
from inference_cache_operator.versions.step import Decision, Facts, Member, step
from inference_cache_operator.versions.telling import Said

STATUS_MANAGER: Final = "inference-cache-status"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Round:
    resource: Resource
    state: State
    claim: observing.Claim
    audited: Sequence[Audited]
    injected: Sequence[Pod]
    prefetched: Prefetched


class Reconciler:
    def __init__(self, collaborators: Collaborators) -> None:
        self._with = collaborators
        self._repairer = Repairer(collaborators)
        self._stillness = Stillness()
        self._nudges = Nudges()

    async def reconcile(self, key: Key) -> float | None:
        """Returns in how many seconds the resource wants to be looked at again; None: at the next resync. Raises ClusterError."""
        resource = await self._resource(key)
        if resource is None or resource.deleting:
            return await self._release(key)
        looked = await self._look(resource)
        early = self._decide(looked, observing.members(looked.injected, {}, self._with.now(), self._with.pace.silence))
        pods = await self._configure(resource, looked.injected, _remembered(early.orders, looked.state))
        statuses = await self._with.sidecars.statuses(looked.injected)
        members = observing.members(looked.injected, statuses, self._with.now(), self._with.pace.silence)
        decision = self._decide(looked, members)
        repairs = await self._repairer.plan(resource, looked.audited, decision)
        behind = _unacknowledged(resource, decision.orders, members)
        seen = Observed(
            resource=resource,
            audited=looked.audited,
            decision=decision,
            repairs=repairs,
            sidecars=statuses,
            unacknowledged=len(behind),
            unheard=_unheard(looked.injected, behind),
            barred=_barred(resource, pods, early.orders, looked.state),
            configured=sum(each.live for each in members) - len(behind),
            rivals=looked.claim.rivals,
            lost=looked.claim.lost,
            pull_failure=self._pull_failure(resource, looked.injected),
            prefetched=looked.prefetched,
        )
        status = status_of(seen, self._with.now())
        moved = await self._write_status(resource, status)
        pods = await self._configure(resource, pods, decision.orders)
        await self._tell(resource, [*decision.said, *looked.prefetched.said, *warnings(resource.status, status)])
        await self._tell(resource, await self._repairer.carry_out(resource, repairs))
        await self._nudges.nudge(self._with.cluster, key, pods, statuses, self._with.now())
        base = first_pause(self._with.pace, decision, repairs, behind, podless=not looked.audited)
        still = self._stillness.seconds(key, resource.uid, moved, self._with.now())
        return None if base is None else pause(base, still, self._with.pace.resync)

    async def _release(self, key: Key) -> float | None:
        """The resource is gone: its pods are told, and looked at until they have heard it."""
        self._stillness.forget(key)
        pods = await releasing.release(self._with.cluster, *key)
        statuses = await self._with.sidecars.statuses(pods) if pods else {}
        behind = await self._nudges.nudge(self._with.cluster, key, pods, statuses, self._with.now())
        return self._with.pace.acknowledging if behind else None

    async def _resource(self, key: Key) -> Resource | None:
        try:
            return read_resource(await self._with.cluster.get(paths.cache(*key)))
        except errors.NotThere:
            return None

    async def _look(self, resource: Resource) -> _Round:
        listed = await self._with.cluster.list(paths.pods(resource.namespace), selector_text(resource.selector))
        others = self._with.index.in_namespace(resource.namespace)
        claimed = observing.claim(resource, [read_pod(each) for each in listed if not is_prefetching(each)], others)
        state = read_state(resource.status)
        audited = observing.stand(claimed, resource, self._with.injector)
        prefetched = await self._with.prefetcher.look(resource, state, audited)
        return _Round(resource, state, claimed, audited, observing.injected(audited, resource), prefetched)

    def _decide(self, looked: _Round, members: Sequence[Member]) -> Decision:
        facts = Facts(
            resource=looked.resource,
            members=members,
            unwell=sum(each.to_replace for each in looked.audited),
            preloaded=looked.prefetched.preloaded,
            now=self._with.now(),
        )
        return step(looked.state, facts)

    async def _configure(self, resource: Resource, pods: Sequence[Pod], orders: Iterable[FlushOrder]) -> list[Pod]:
        return await configuring.configure(self._with.cluster, pods, Configuration(resource.spec, tuple(orders)).text())

    def _pull_failure(self, resource: Resource, pods: Sequence[Pod]) -> PullFailure | None:
        image = (resource.spec.get("sidecar") or {}).get("image") or self._with.default_image
        return pull_failure(pods, image, self._with.now())

    async def _write_status(self, resource: Resource, status: Mapping[str, Any]) -> bool:
        """Before anything is done, and only over the status that was read: two leaders cannot decide differently.

        By force: whoever else has once written a status, as a restored backup does, does not own it. Returns whether it was another.
        """
        if status == resource.status:
            return False
        metadata = {
            "name": resource.name,
            "namespace": resource.namespace,
            "uid": resource.uid,
            "resourceVersion": resource.resource_version,
        }
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": status}
        await self._with.cluster.apply(paths.cache_status(resource.namespace, resource.name), body, STATUS_MANAGER, force=True)
        return True

    async def _tell(self, resource: Resource, said: Iterable[Said]) -> None:
        for each in said:
            _log.info("%s/%s: %s: %s", resource.namespace, resource.name, each.reason, each.message)
            try:
                body = event(resource, each, self._with.instance, self._with.now())
                await self._with.cluster.create(paths.events(resource.namespace), body)
            except errors.ClusterError as error:
                _log.warning("event not written: %s", error)


def _remembered(orders: Iterable[FlushOrder], state: State) -> list[FlushOrder]:
    """Those that stand in the status already, and so may be given before it is written."""
    known = {each.id for each in state.flushes}
    return [each for each in orders if each.id in known]


def _unacknowledged(resource: Resource, orders: Sequence[FlushOrder], members: Iterable[Member]) -> list[Member]:
    wanted = digest(Configuration(resource.spec, tuple(orders)).text())
    return [each for each in members if each.live and (each.status is None or each.status.configuration != wanted)]


def _barred(resource: Resource, pods: Iterable[Pod], orders: Iterable[FlushOrder], state: State) -> Pod | None:
    text = Configuration(resource.spec, tuple(_remembered(orders, state))).text()
    return next((pod for pod in pods if pod.configuration != text and not pod.ending), None)


def _unheard(pods: Iterable[Pod], behind: Iterable[Member]) -> Pod | None:
    silent = {each.uid for each in behind if each.status is None}
    return next((pod for pod in pods if pod.uid in silent), None)
