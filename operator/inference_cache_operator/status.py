"""The resource's status, from what was observed and decided. Pure; kstatus conventions: Reconciling and Stalled are abnormal when true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_contract.endpoints import ADMIN_PORT
from inference_cache_contract.sidecar_status import SidecarStatus
from inference_cache_operator.audit.images import REASON as IMAGE_PULL_FAILED
from inference_cache_operator.audit.images import PullFailure
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.audit.repair import Leave, Repair, Wait
from inference_cache_operator.audit.standing import Audited, Standing
from inference_cache_operator.audit.unstarted import kept_from_starting
from inference_cache_operator.prefetch.outcome import Prefetched, artifacts_status
from inference_cache_operator.resource import Resource
from inference_cache_operator.status_artifacts import artifacts_condition
from inference_cache_operator.status_condition import Condition, dated, present
from inference_cache_operator.status_store import store_condition
from inference_cache_operator.versions.state import write_state
from inference_cache_operator.versions.step import Decision
from inference_cache_operator.versions.times import seconds_of

SETTLING_SECONDS: Final = 4.0
"""So long a resource without pods is not called Ready: a Deployment of the same apply has yet to make its own. Times in a status are cut to
the second, so that it is three at least."""
FIRST_LOOK: Final = "FirstLook"
_LONGEST_CAUSE: Final = 300
"""Characters of a message that quotes the scheduler or kubelet."""
_LONGEST_REFUSAL: Final = 1800
"""Characters of a refusal, which may quote all of a pod's arguments."""
IMAGE_PULL_TRIAL: Final = "ImagePullTrial"
_STALLING: Final = ("NoController", "UnknownWorkload", "TemplateNamesAnotherVersion", "WouldInterrupt", "RolledAlready")
"""Reasons to leave pods as they are that only somebody else can end; `Manual` is what the user wants."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One round's view of a resource."""

    resource: Resource
    audited: Sequence[Audited]
    decision: Decision
    repairs: Sequence[Repair]
    sidecars: Mapping[str, SidecarStatus]
    """By pod uid; of those that answered."""
    unacknowledged: int
    """Live sidecars in which the present configuration is not in force yet."""
    unheard: Pod | None
    """One of them that does not answer."""
    barred: Pod | None
    """A pod whose annotations the API server lets nobody change."""
    configured: int
    """Live sidecars in which it is."""
    rivals: Sequence[str]
    """Other resources that select some of the same pods."""
    lost: int
    """Selected pods that belong to an older resource."""
    pull_failure: PullFailure | None
    prefetched: Prefetched


def status_of(seen: Observed, now: float) -> dict[str, Any]:
    """The whole status; equal to the present one where nothing changed."""
    artifacts = artifacts_status(seen.prefetched)
    return {
        **write_state(seen.decision.state),
        "observedGeneration": seen.resource.generation,
        "pods": _counts(seen),
        "sidecars": {"configured": seen.configured},
        **({} if artifacts is None else {"artifacts": artifacts}),
        "conditions": dated(_conditions(seen, now), seen.resource.status, seen.resource.generation, now),
    }


def _counts(seen: Observed) -> dict[str, int]:
    def count(*standings: Standing) -> int:
        return sum(each.standing in standings for each in staying)

    staying = [each for each in seen.audited if not each.pod.ending]
    injected = (Standing.INJECTED, Standing.OUTDATED)
    return {
        "selected": len(staying),
        "injected": count(*injected),
        "ready": sum(each.pod.ready and each.standing in injected for each in staying),
        "missing": count(Standing.MISSING),
        "outdated": count(Standing.OUTDATED),
        "refused": count(Standing.REFUSED),
    }


def _conditions(seen: Observed, now: float) -> list[Condition]:
    stalled, reconciling = _stalled(seen), _reconciling(seen, now)
    return [
        _ready(seen, stalled, reconciling),
        reconciling,
        stalled,
        _artifacts(seen),
        _injected(seen),
        _rollout(seen),
        _flushed(seen),
        _conflicted(seen),
        store_condition([status for _, status in sorted(seen.sidecars.items())], any_pods=bool(seen.audited)),
    ]


def _ready(seen: Observed, stalled: Condition, reconciling: Condition) -> Condition:
    for each in (stalled, reconciling):
        if each.status == "True":
            return Condition("Ready", "False", each.reason, each.message)
    counts = _counts(seen)
    if not counts["selected"]:
        return Condition("Ready", "True", "NoPods", "no pod is selected yet")
    return Condition("Ready", "True", "Ready", f"version {seen.decision.state.active!r} is served")


def _reconciling(seen: Observed, now: float) -> Condition:
    def busy(reason: str, message: str = "") -> Condition:
        return Condition("Reconciling", "True", reason, message)

    state, counts = seen.decision.state, _counts(seen)
    waiting = next((each for each in seen.repairs if not isinstance(each, Leave) or each.reason == "Manual"), None)
    if waiting is not None:
        return busy(*_said(waiting, seen))
    if state.phase != "Stable" and not seen.decision.waiting_for_sidecar:
        return busy(state.phase, _under_way(seen))
    if seen.unacknowledged:
        text = f"{seen.unacknowledged} sidecars have not taken the present configuration yet{_no_answer(seen.unheard)}"
        return busy("ApplyingConfiguration", text)
    if counts["injected"] and not counts["ready"]:
        return busy("PodsStarting", _with_cause("no injected pod is Ready yet", seen))
    if not counts["selected"] and not seen.lost and _is_new(seen.resource, now):
        return busy(FIRST_LOOK, "no pod is selected yet; those of a workload made just now may come")
    return Condition("Reconciling", "False", "Done")


def _artifacts(seen: Observed) -> Condition:
    return artifacts_condition(seen.resource, [each.pod for each in seen.audited if not each.has_other_files], seen.prefetched)


def _is_new(resource: Resource, now: float) -> bool:
    """By our own clock: the API server's may differ."""
    before = present(resource.status)
    if not before:
        return True
    last = before.get("Reconciling") or {}
    since = seconds_of(last.get("lastTransitionTime"))
    return last.get("reason") == FIRST_LOOK and since is not None and 0 <= now - since < SETTLING_SECONDS


def _under_way(seen: Observed) -> str:
    if seen.decision.state.phase == "Preloading":
        return _artifacts(seen).message
    return _with_cause(f"version {seen.resource.version!r}", seen)


def _with_cause(text: str, seen: Observed) -> str:
    """And what keeps a pod from starting, where something does."""
    cause = kept_from_starting(each.pod for each in seen.audited)
    return _shortened(f"{text}; {cause}", _LONGEST_CAUSE) if cause else text


def _no_answer(pod: Pod | None) -> str:
    if pod is None:
        return ""
    return f"; no answer from pod {pod.name} at {pod.ip}:{ADMIN_PORT}: does a NetworkPolicy bar the operator?"


def _said(repair: Repair, seen: Observed) -> tuple[str, str]:
    if isinstance(repair, Wait):
        return repair.reason, _with_cause(repair.message, seen)
    if isinstance(repair, Leave):
        return repair.reason, repair.message
    return "ReplacingPods", "pods are replaced to get the sidecar as it is now"


def _stalled(seen: Observed) -> Condition:
    def because(reason: str, message: str) -> Condition:
        return Condition("Stalled", "True", reason, message)

    if seen.pull_failure is not None:
        trial = "; the next pod tries it again" if seen.pull_failure.trial_due else ""
        reason = IMAGE_PULL_TRIAL if seen.pull_failure.trial_due else IMAGE_PULL_FAILED
        return because(reason, f"`{seen.pull_failure.image}` cannot be pulled, so that new pods start without the sidecar{trial}")
    if seen.lost and not seen.audited:
        return because("Conflicted", _rivals(seen))
    if (problem := _not_configured(seen)) is not None:
        return because(*problem)
    left = next((each for each in seen.repairs if isinstance(each, Leave) and each.reason in _STALLING), None)
    if left is not None:
        return because(left.reason, left.message)
    refused = [each for each in seen.audited if each.standing is Standing.REFUSED and not each.pod.ending]
    return because("PodsRefused", _refusals(refused, seen.resource)) if refused else Condition("Stalled", "False", "Fine")


def _refusals(refused: Sequence[Audited], resource: Resource) -> str:
    first, more = refused[0], len(refused) - 1
    others = f"; and {more} more: see the events of `kubectl describe inferencecache {resource.name}`" if more else ""
    return f"{_shortened(f'{first.pod.name}: {first.reason}', _LONGEST_REFUSAL)}{others}"


def _not_configured(seen: Observed) -> tuple[str, str] | None:
    if seen.barred is not None:
        return "ConfigurationNotWritten", f"pod {seen.barred.name}: its annotations cannot be changed: does a policy forbid it?"
    refused = next((status.refused[0] for _, status in sorted(seen.sidecars.items()) if status.refused), None)
    return None if refused is None else ("ConfigurationRefused", refused)


def _injected(seen: Observed) -> Condition:
    counts = _counts(seen)
    if not counts["selected"]:
        return Condition("Injected", "True", "NoPods")
    if counts["missing"] or counts["refused"]:
        reason = "PodsRefused" if not counts["missing"] else "PodsMissing"
        return Condition(
            "Injected", "False", reason, f"{counts['missing']} missing and {counts['refused']} refused of {counts['selected']}"
        )
    return Condition("Injected", "True", "Injected")


def _rollout(seen: Observed) -> Condition:
    counts, phase = _counts(seen), seen.decision.state.phase
    if phase in ("Preloading", "Updating", "Draining"):
        still = "no pod is replaced before the files are there" if phase == "Preloading" else f"{counts['outdated']} pods to go"
        text = f"version {seen.resource.version!r}; {still}"
        return Condition("RolloutComplete", "False", phase, _with_cause(text, seen))
    if counts["outdated"]:
        text = f"{counts['outdated']} of {counts['selected']}{_how_to_end(seen)}"
        return Condition("RolloutComplete", "False", "PodsOutdated", _with_cause(text, seen))
    return Condition("RolloutComplete", "True", "Complete")


def _how_to_end(seen: Observed) -> str:
    lagging = sum(each.lags and not each.pod.ending for each in seen.audited)
    return f"; {lagging} of them have the sidecar of another operator version: roll their workloads when it suits you" if lagging else ""


def _flushed(seen: Observed) -> Condition:
    decision, flushes = seen.decision, seen.decision.state.flushes
    if decision.waiting_for_sidecar:
        return Condition("CacheFlushed", "False", "NoSidecar", "the next sidecar that starts flushes")
    if decision.orders:
        return Condition("CacheFlushed", "False", "Flushing", ", ".join(_target(each.target, each.value) for each in decision.orders))
    waiting = next((each for each in flushes if each.time is None), None)
    if waiting is not None:
        return Condition("CacheFlushed", "False", "PodsServing", f"pods still serve version {waiting.value!r}")
    if flushes:
        return Condition("CacheFlushed", "False", "Retained", f"version {flushes[0].value!r} is kept warm for a rollback")
    return Condition("CacheFlushed", "True", "NothingLeft")


def _target(target: str, value: str) -> str:
    return "everything" if target == "all" else f"version {value!r}"


def _conflicted(seen: Observed) -> Condition:
    if seen.rivals:
        return Condition("Conflicted", "True", "SelectorsOverlap", _rivals(seen))
    return Condition("Conflicted", "False", "NoOverlap")


def _rivals(seen: Observed) -> str:
    several = len(seen.rivals) != 1
    theirs = "they, being older, win" if several else "it, being older, wins"
    outcome = theirs if seen.lost else "this one, being older, wins"
    return f"{', '.join(seen.rivals)} {'select' if several else 'selects'} the same pods; {outcome}"


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
