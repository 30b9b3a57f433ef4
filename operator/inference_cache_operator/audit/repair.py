"""How the pods of one owner that are to be replaced get replaced. Pure; the controller asks at every round and does the one next thing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.audit.standing import Audited, Standing
from inference_cache_operator.audit.workloads import Workload, interruption, is_rolling, remedy, trigger_value

USER_SECONDS: Final = 60.0
"""The owner of a template gets this long to name the new version himself."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It will come right, or is looked at again soon."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Somebody has to do something."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Roll:
    workload: Workload
    value: str
    """For the rollout annotation of its template."""


@dataclass(frozen=True, slots=True)
class Evict:
    pod: Pod


Repair = Wait | Leave | Roll | Evict


@dataclass(frozen=True, slots=True)
class Ward:
    """All selected pods of one owner, and what is known of it."""

    pods: Sequence[Audited]
    owner: str
    """For people; empty: these pods have no controller."""
    workload: Workload | None
    """None: of a kind that we do not know how to roll."""
    evicting: bool = False
    """Another manager owns the template's annotations, so that pods go one by one."""


@dataclass(frozen=True, slots=True)
class Means:
    """What holds for all owners of one round."""

    trigger: str
    """`Auto` or `Manual`."""
    may_roll: bool
    """As the versions say."""
    version: str
    injection: str
    """Names what is injected now."""
    started_at: float
    """Since when there is something to replace."""
    now: float
    webhook_reached: bool
    image_fails: bool
    user_seconds: float = USER_SECONDS


def repair(ward: Ward, means: Means) -> Repair | None:
    """None: there is nothing to replace."""
    if not any(each.to_replace for each in ward.pods):
        return None
    return _forbidden(ward, means) or _wait(ward, means) or _replace(ward, means)


def confirmed(ward: Ward, means: Means, pods: Mapping[str, Pod]) -> Repair:
    """As `repair`, with `pods` (by uid) as they were after the workload was read: its own rollout may have ended just before."""
    staying = [replace(each, pod=pods[each.pod.uid]) for each in ward.pods if each.pod.uid in pods]
    return repair(replace(ward, pods=staying), means) or Wait("RolloutInProgress", f"{ward.owner} has just replaced its pods")


def _forbidden(ward: Ward, means: Means) -> Leave | None:
    workload = ward.workload
    if not ward.owner:
        return Leave("NoController", "pods without a controller are not evicted: make them again")
    if means.trigger == "Manual":
        return Leave("Manual", f"roll {ward.owner} yourself, as spec.rollout.trigger says")
    if workload is None:
        return Leave("UnknownWorkload", f"{ward.owner} is of a kind that is not rolled here: roll it yourself")
    if workload.pinned_version not in (None, means.version) and not _missing(ward):
        told = (
            f"the template of {ward.owner} names version {workload.pinned_version!r}, the resource {means.version!r}: correct one of them"
        )
        return Leave("TemplateNamesAnotherVersion", told)
    return None


def _wait(ward: Ward, means: Means) -> Wait | Leave | None:
    assert ward.workload is not None
    if not means.may_roll:
        return Wait("NotYet", "an order must be acknowledged, or artifacts be there, before pods are replaced")
    if means.image_fails:
        return Wait("ImagePullFailed", "the sidecar's image cannot be pulled")
    if not ward.evicting and is_rolling(ward.workload) and not _stuck(ward):
        return Wait("RolloutInProgress", f"{ward.owner} is replacing its pods")
    if not _missing(ward) and means.now - means.started_at < means.user_seconds and _for_version(ward, means):
        return Wait("WaitingForTemplate", f"the owner of {ward.owner} may change its template")
    if not means.webhook_reached:
        return Wait("WebhookNotReached", "no webhook has answered a probe pod, or one of another installation has, as during an upgrade")
    return None


def _replace(ward: Ward, means: Means) -> Repair:
    workload = ward.workload
    assert workload is not None
    if ward.evicting:
        return _evict(ward, means)
    interrupting = interruption(workload)
    if interrupting is not None:
        return Leave("WouldInterrupt", f"{ward.owner} is not rolled, since {interrupting}; when it suits you: {remedy(workload)}")
    value = trigger_value(workload, means.version, means.injection)
    if workload.triggered == value:
        return Leave("RolledAlready", f"{ward.owner} was rolled for this, and its pods came back unchanged")
    return Roll(workload, value)


def _evict(ward: Ward, means: Means) -> Repair:
    """One after the other: the next only when all others are Ready, and never the last one that is."""
    staying = [each for each in ward.pods if not each.pod.ending]
    replaced = [each for each in staying if each.to_replace]
    assert ward.workload is not None
    if any(each.pod.created > means.started_at for each in replaced):
        return Leave("RolledAlready", f"pods of {ward.owner} came back unchanged")
    unready = [each for each in replaced if not each.pod.ready]
    if unready:
        return Evict(unready[0].pod)
    if len(staying) < len(ward.pods) or len(staying) < ward.workload.replicas or not all(each.pod.ready for each in staying):
        return Wait("WaitingForSuccessor", f"a pod of {ward.owner} is not Ready yet")
    if len(staying) < 2:
        told = f"{ward.owner} has a single pod, and its template's annotations belong to somebody else"
        return Leave("WouldInterrupt", f"{told}; when it suits you: delete the pod {staying[0].pod.name}")
    return Evict(min((each.pod for each in replaced), key=lambda pod: (pod.created, pod.name)))


def _stuck(ward: Ward) -> bool:
    """The rollout makes pods that do not become Ready, and are to be replaced themselves: it will never end by itself."""
    return any(each.to_replace and not each.pod.ready and not each.pod.ending for each in ward.pods)


def _missing(ward: Ward) -> bool:
    return any(each.standing is Standing.MISSING and each.to_replace for each in ward.pods)


def _for_version(ward: Ward, means: Means) -> bool:
    return any(each.to_replace and each.pod.version != means.version for each in ward.pods)
