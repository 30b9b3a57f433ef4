"""What is worth an event about fetching ahead. Pure; failures are told when the status changes (`status_warnings`)."""

from collections.abc import Iterator, Mapping
from typing import Any

from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.prefetch.deciding import Plan
from inference_cache_operator.prefetch.outcome import Figures
from inference_cache_operator.resource import Resource
from inference_cache_operator.versions.state import State
from inference_cache_operator.versions.telling import Said
from inference_cache_operator.versions.times import seconds_of


def begun(resource: Resource, state: State, plan: Plan) -> tuple[Said, ...]:
    """Told until the status tells of it: what a round says is heard only if its status could be written."""
    known = state.phase == "Preloading" and state.updating == resource.version
    if not plan.nodes or (known and (resource.status.get("artifacts") or {}).get("nodes")):
        return ()
    return (Said("PrefetchStarted", f"version {resource.version!r} is fetched to {_places(resource, plan)}"),)


def ended(resource: Resource, state: State, plan: Plan, figures: Mapping[str, Figures]) -> tuple[Said, ...]:
    """Told by whoever finds it done while the status says that it is not."""
    if state.phase != "Preloading" or state.updating != resource.version or not plan.made:
        return ()
    size = max((each.get("totalBytes", 0) for each in figures.values()), default=0)
    what = f"{size} bytes of version {resource.version!r} are" if size else f"version {resource.version!r} is"
    return (Said("PrefetchDone", f"{what} on {_places(resource, plan)} after {_seconds(plan.made):.0f} s"),)


def _places(resource: Resource, plan: Plan) -> str:
    count = len(plan.nodes)
    return "the claim" if resource.artifact_claim is not None else f"{count} node{'' if count == 1 else 's'}"


def _seconds(pods: tuple[Pod, ...]) -> float:
    """From the first pod's making to the last one's end, as Kubernetes dates them."""
    began = min(pod.created for pod in pods)
    return max((end for pod in pods for end in _ends(pod)), default=began) - began


def _ends(pod: Pod) -> Iterator[float]:
    status: Mapping[str, Any] = pod.body.get("status") or {}
    for each in status.get("containerStatuses") or ():
        end = seconds_of(((each.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        if end is not None:
            yield end
