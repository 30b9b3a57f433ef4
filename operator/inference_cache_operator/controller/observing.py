"""One look at a resource's pods: which are its own, how they stand, and who else claims them. Pure but for the names of its inputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inference_cache_contract.sidecar_status import SidecarStatus
from inference_cache_operator.audit.pods import Pod, sidecar_state
from inference_cache_operator.audit.standing import Audited, Injector, Standing, audit
from inference_cache_operator.resource import Resource
from inference_cache_operator.selecting import select
from inference_cache_operator.versions.step import Member

_INJECTED = (Standing.INJECTED, Standing.OUTDATED)


@dataclass(frozen=True, slots=True)
class Claim:
    own: Sequence[Pod]
    lost: int
    """Pods that an older resource has."""
    rivals: Sequence[str]


def claim(resource: Resource, pods: Iterable[Pod], others: Iterable[Resource]) -> Claim:
    """`pods` are all that the resource's selector selects, `others` the resources of its namespace, itself among them or not."""
    resources = [resource, *(each for each in others if each.uid != resource.uid)]
    own, lost, rivals = [], 0, set[str]()
    for pod in pods:
        selected = select(pod.namespace, pod.labels, resources)
        if selected is None:
            continue
        claimants = (selected.winner, *selected.losers)
        if selected.winner.uid == resource.uid:
            own.append(pod)
        elif any(each.uid == resource.uid for each in claimants):
            lost += 1
        rivals |= {each.name for each in claimants if each.uid != resource.uid and len(claimants) > 1}
    return Claim(own, lost, sorted(rivals))


def stand(claimed: Claim, resource: Resource, injector: Injector) -> list[Audited]:
    return audit(claimed.own, resource, injector)


def injected(audited: Iterable[Audited], resource: Resource) -> list[Pod]:
    """Those whose sidecar is this resource's."""
    return [each.pod for each in audited if each.standing in _INJECTED and each.pod.cache == resource.name]


def members(pods: Iterable[Pod], statuses: Mapping[str, SidecarStatus], now: float, silence_seconds: float) -> list[Member]:
    return [_member(pod, statuses.get(pod.uid), now, silence_seconds) for pod in pods]


def _member(pod: Pod, status: SidecarStatus | None, now: float, silence_seconds: float) -> Member:
    overdue = pod.ending_by is not None and now > pod.ending_by + silence_seconds
    silenced = overdue and (status is None or status.draining)
    return Member(
        uid=pod.uid,
        version=pod.version,
        ready=pod.ready,
        ending=pod.ending,
        running="running" in sidecar_state(pod),
        silenced=silenced,
        status=status,
    )
