"""The edits of a pod, each with what it takes to undo it. Pure; edits a copy that the caller made."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_contract.endpoints import ADMIN_PORT, DRAIN
from inference_cache_contract.pod import INJECTED_LABEL
from inference_cache_operator.injection import probes, shell
from inference_cache_operator.injection.command import Place
from inference_cache_operator.injection.undo import UNDO_ANNOTATION, Undo, addition, empties

_DEFAULT_GRACE: Final = 30
"""Seconds, as Kubernetes has it."""
_BEHIND_DRAIN: Final = 30
"""Seconds for vLLM to end by itself once nothing is in flight any more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be done, decided."""

    container: str
    place: Place
    words: list[str]
    """Arguments that vLLM gets besides its own."""
    port: int
    moved: int
    sidecar: dict[str, Any]
    volumes: list[dict[str, Any]]
    annotations: Mapping[str, str]
    drain_path: str
    drain_seconds: float


def drain_path(token: str) -> str:
    return f"{DRAIN}/{token}"


def grace_seconds(drain_seconds: float) -> int:
    return math.ceil(drain_seconds) + _BEHIND_DRAIN


def apply(pod: dict[str, Any], plan: Plan) -> None:
    """Leaves in the pod what `stripped` needs."""
    metadata, spec = pod["metadata"], pod["spec"]
    container = next(each for each in spec["containers"] if each["name"] == plan.container)
    empty = _empty(pod, container, plan.place.field)
    drains = _drain(container, plan.drain_path)
    _add_words(container, plan.place, plan.words)
    record = Undo(
        container=plan.container,
        moved=plan.moved,
        place=plan.place.field,
        words=plan.words,
        shell_index=plan.place.shell_index,
        probes=probes.repoint(container, plan.port, plan.moved),
        grace=_raise_grace(spec, grace_seconds(plan.drain_seconds)),
        drains=drains,
        annotations=_overwritten(metadata, plan.annotations),
        label=(metadata.get("labels") or {}).get(INJECTED_LABEL),
        empty=empty,
    )
    spec["initContainers"] = [plan.sidecar, *(spec.get("initContainers") or ())]
    spec["volumes"] = [*(spec.get("volumes") or ()), *plan.volumes]
    metadata["labels"] = {**(metadata.get("labels") or {}), INJECTED_LABEL: "true"}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **plan.annotations, UNDO_ANNOTATION: record.text()}


def _empty(pod: Mapping[str, Any], container: Mapping[str, Any], field: str) -> dict[str, bool]:
    """Of what is about to be filled: what is not there (False) or null (True)."""
    lifecycle = container.get("lifecycle")
    looked_at = (
        ("metadata.", pod["metadata"], ("annotations", "labels")),
        ("spec.", pod["spec"], ("initContainers", "volumes", "terminationGracePeriodSeconds")),
        ("container.", container, ("lifecycle", field)),
        ("lifecycle.", lifecycle or {}, ("preStop",)),
    )
    return empties(looked_at)


def _drain(container: dict[str, Any], path: str) -> bool:
    """False: the container has a hook already, which stays."""
    lifecycle = container.get("lifecycle") or {}
    if lifecycle.get("preStop"):
        return False
    container["lifecycle"] = {**lifecycle, "preStop": {"httpGet": {"path": path, "port": ADMIN_PORT}}}
    return True


def _add_words(container: dict[str, Any], place: Place, words: list[str]) -> None:
    before = container.get(place.field) or []
    if place.shell_index is None:
        container[place.field] = [*before, *words]
    else:
        before[place.shell_index] = shell.append(before[place.shell_index], addition(words))


def _raise_grace(spec: dict[str, Any], seconds: int) -> list[int | None]:
    before = spec.get("terminationGracePeriodSeconds")
    if (_DEFAULT_GRACE if before is None else before) >= seconds:
        return []
    spec["terminationGracePeriodSeconds"] = seconds
    return [before, seconds]


def _overwritten(metadata: Mapping[str, Any], annotations: Mapping[str, str]) -> dict[str, str | None]:
    before = metadata.get("annotations") or {}
    kept = {UNDO_ANNOTATION: before[UNDO_ANNOTATION]} if UNDO_ANNOTATION in before else {}
    return {**{name: before.get(name) for name in annotations}, **kept}
