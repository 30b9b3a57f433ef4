"""What becomes of one pod that is to be created. Pure; `handling` asks the cluster before and tells it after."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

from inference_cache_contract.pod import GROUP
from inference_cache_operator.audit.images import REASON as PULL_FAILED
from inference_cache_operator.audit.images import is_withheld
from inference_cache_operator.injection.container import at
from inference_cache_operator.injection.inject import Injected, Outcome, Refused, Unchanged, is_injected, stripped
from inference_cache_operator.resource import Resource
from inference_cache_operator.selecting import Selected, select

PROBE_ANNOTATION: Final = f"{GROUP}/probe"
"""On a pod of the operator's own namespace, created as a dry run: shows that the webhook is reached."""
PROBED_ANNOTATION: Final = f"{GROUP}/probed-by"
"""The answer: the webhook pods that saw the probe, parted by commas, each with what it injects: `<pod>=<installation_digest>`."""

Inject = Callable[[Mapping[str, Any], Resource], Outcome]


@dataclass(frozen=True, slots=True)
class Asked:
    pod: Mapping[str, Any] = field(repr=False)
    namespace: str
    required: bool
    """The request came by a `Fail` entry: a pod that cannot be injected must not start."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who decides."""

    own_namespace: str
    pod_name: str
    sidecar_image: str = ""
    """Where a resource names none."""
    offer: str = ""
    """Names what this installation injects."""


@dataclass(frozen=True, slots=True)
class Change:
    """The pod is admitted as `pod`."""

    pod: Mapping[str, Any] = field(repr=False)
    warnings: tuple[str, ...]
    resource: Resource


@dataclass(frozen=True, slots=True)
class Answer:
    """To a probe: one annotation."""

    value: str


@dataclass(frozen=True, slots=True)
class Leave:
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Warn:
    """Admitted without the sidecar, and somebody should know."""

    resource: Resource
    reason: str
    message: str
    warnings: tuple[str, ...]
    pod: Mapping[str, Any] | None = field(default=None, repr=False)
    """None: as it came."""


@dataclass(frozen=True, slots=True)
class Deny:
    resource: Resource
    reason: str
    message: str


Decision = Change | Answer | Leave | Warn | Deny


def decide(asked: Asked, resources: Iterable[Resource], asker: Asker, inject: Inject) -> Decision:
    metadata = asked.pod.get("metadata") or {}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    if asked.namespace == asker.own_namespace and PROBE_ANNOTATION in annotations:
        return Answer(_with_answer(annotations.get(PROBED_ANNOTATION, ""), asker))
    selected = select(asked.namespace, metadata.get("labels") or {}, resources)
    if selected is None:
        return Leave("no InferenceCache selects it")
    return _selected(asked, selected, asker, inject)


def offers(answer: str) -> list[str]:
    """What the webhooks that saw a probe inject."""
    return [each.partition("=")[2] for each in answer.split(",") if each]


def _selected(asked: Asked, selected: Selected, asker: Asker, inject: Inject) -> Decision:
    resource, conflict = selected.winner, _conflict(selected)
    outcome = inject(asked.pod, resource)
    match outcome:
        case Injected() if (problem := _withheld(asked, resource, asker)) is not None:
            told = f"InferenceCache {resource.name}: admitted without the cache: {problem}"
            return Warn(resource, PULL_FAILED, problem, (*conflict, told), stripped(asked.pod) if is_injected(asked.pod) else None)
        case Injected():
            return Change(outcome.pod, conflict + outcome.warnings, resource)
        case Unchanged():
            return Leave(outcome.reason, conflict)
        case Refused():
            if asked.required and resource.artifacts and not outcome.has_artifacts:
                return Deny(resource, outcome.reason, f"InferenceCache {resource.name}: {outcome.message}")
            told = f"InferenceCache {resource.name}: admitted without the cache: {outcome.message}"
            return Warn(resource, outcome.reason, outcome.message, (*conflict, told), outcome.pod)
    assert_never(outcome)


def _withheld(asked: Asked, resource: Resource, asker: Asker) -> str | None:
    """While the sidecar's image cannot be pulled, a pod had better start without; not one that must have its artifacts."""
    image = str(at(resource.spec, "sidecar", "image") or asker.sidecar_image)
    if not is_withheld(resource.status, image) or (asked.required and resource.artifacts):
        return None
    return f"the sidecar's image {image} cannot be pulled"


def _conflict(selected: Selected) -> tuple[str, ...]:
    if not selected.losers:
        return ()
    others = ", ".join(each.name for each in selected.losers)
    return (f"InferenceCaches {selected.winner.name} and {others} select this pod: {selected.winner.name}, the oldest, is used",)


def _with_answer(present: str, asker: Asker) -> str:
    return ",".join(dict.fromkeys([*filter(None, present.split(",")), f"{asker.pod_name}={asker.offer}"]))
