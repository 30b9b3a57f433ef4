"""Why a pod does not start, as the scheduler and kubelet say it. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from inference_cache_operator.audit.pods import Pod

_ON_ITS_WAY: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
_SAME: Final = {"ErrImagePull": "ImagePullBackOff"}
"""Kubelet says the one and the other by turns."""
_COUNTING: Final = frozenset({"CrashLoopBackOff", "ImagePullBackOff"})
"""Their messages tell of times that grow."""


def kept_from_starting(pods: Iterable[Pod]) -> str:
    """Of the first pod that something keeps from starting: its name and what. Empty where none is, or nobody has said why yet."""
    found = ((pod.name, reason) for pod in pods if not pod.ready and not pod.ending for reason in _reasons(pod))
    return next((f"pod {name}: {reason}" for name, reason in found), "")


def _reasons(pod: Pod) -> Iterator[str]:
    status = pod.body.get("status") or {}
    for each in status.get("conditions") or ():
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            yield str(each.get("message") or each.get("reason") or "is not scheduled")
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if (waiting.get("reason") or "") not in _ON_ITS_WAY:
            yield f"container {container.get('name')}: {_waiting(waiting)}"


def _waiting(waiting: Mapping[str, Any]) -> str:
    reason = str(waiting["reason"])
    reason = _SAME.get(reason, reason)
    message = "" if reason in _COUNTING else str(waiting.get("message") or "")
    return f"{reason}: {message}" if message else reason
