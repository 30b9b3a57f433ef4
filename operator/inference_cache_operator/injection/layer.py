"""Puts what fetches a pod's artifacts into the pod, and takes it out again. Pure; `apply` and `undo` edit a copy that the caller made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from inference_cache_operator.injection import delivery, fetching
from inference_cache_operator.injection.artifacts import Artifact
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.injection.fetching import ARTIFACTS_ANNOTATION
from inference_cache_operator.injection.finding import annotations_of, containers_of, likely_name
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.injection.resources import resources_are_the_pods
from inference_cache_operator.injection.undo import clear, empties, put_back
from inference_cache_operator.resource import Resource

_LISTS: Final = ("initContainers", "volumes")


@dataclass(frozen=True, slots=True)
class Layer:
    """All that is to be done, decided."""

    container: str
    """vLLM's."""
    containers: list[dict[str, Any]]
    volumes: list[dict[str, Any]]
    mounts: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Record:
    container: str
    empty: dict[str, bool]
    before: str | None = None
    """What stood under the annotation."""


def layer(pod: Mapping[str, Any], artifacts: Sequence[Artifact], resource: Resource, defaults: SidecarDefaults) -> Layer | None:
    """None: there is nothing to fetch. `pod` is as it was submitted. Raises Refusal."""
    if not artifacts:
        return None
    name = likely_name(pod)
    vllm = next(each for each in containers_of(pod) if each.get("name") == name)
    _check_mounts(vllm, artifacts)
    spec = pod.get("spec") or {}
    way = fetching.way_of(spec, resource, defaults)
    found = fetching.containers(artifacts, way, fetching.others_in_use(way))
    if resources_are_the_pods(spec):
        for each in found:
            del each["resources"]
    return Layer(name, found, fetching.volumes(artifacts, way), fetching.mounts(artifacts))


def apply(pod: dict[str, Any], plan: Layer) -> None:
    """Leaves in the pod what `undo` needs. What fetches comes first, so that no sidecar starts and waits for it."""
    metadata, spec = pod["metadata"], pod["spec"]
    vllm = next(each for each in spec["containers"] if each["name"] == plan.container)
    empty = empties([("metadata.", metadata, ("annotations",)), ("spec.", spec, _LISTS), ("container.", vllm, ("volumeMounts",))])
    annotations = metadata.get("annotations") or {}
    record = _Record(plan.container, empty, annotations.get(ARTIFACTS_ANNOTATION))
    spec["initContainers"] = [*plan.containers, *(spec.get("initContainers") or ())]
    spec["volumes"] = [*(spec.get("volumes") or ()), *plan.volumes]
    vllm["volumeMounts"] = [*(vllm.get("volumeMounts") or ()), *plan.mounts]
    text = json.dumps(asdict(record), sort_keys=True, separators=(",", ":"))
    metadata["annotations"] = {**annotations, ARTIFACTS_ANNOTATION: text}


def is_there(pod: Mapping[str, Any]) -> bool:
    return _record_of(pod) is not None


def is_current(pod: Mapping[str, Any], needed: bool, resource: Resource, defaults: SidecarDefaults) -> bool:
    """Whether files come to the pod as they would now. A copied pod may name a folder of the node that its namespace no longer allows."""
    there = is_there(pod)
    return there == needed and (not there or delivery.is_current(pod, resource, defaults))


def undo(pod: dict[str, Any]) -> None:
    """Edits `pod`; does nothing where nothing of ours is in it."""
    record = _record_of(pod)
    if record is None:
        return
    metadata, spec = pod["metadata"], pod["spec"]
    spec["initContainers"] = [each for each in spec.get("initContainers") or () if not fetching.is_fetching(each)]
    spec["volumes"] = [each for each in spec.get("volumes") or () if not fetching.is_volume(each)]
    vllm = next((each for each in spec.get("containers") or () if each.get("name") == record.container), None)
    if vllm is not None:
        vllm["volumeMounts"] = [each for each in vllm.get("volumeMounts") or () if not fetching.is_volume(each)]
        clear(vllm, ("volumeMounts",), record.empty, "container.")
    put_back(metadata["annotations"], ARTIFACTS_ANNOTATION, record.before)
    clear(metadata, ("annotations",), record.empty, "metadata.")
    clear(spec, _LISTS, record.empty, "spec.")


def _record_of(pod: Mapping[str, Any]) -> _Record | None:
    """None: nothing fetches in the pod, or the annotation is not what `apply` wrote, which anybody can write."""
    text = annotations_of(pod).get(ARTIFACTS_ANNOTATION)
    if text is None or not any(fetching.is_fetching(each) for each in containers_of(pod, "initContainers")):
        return None
    try:
        record = _Record(**json.loads(text))
    except (TypeError, ValueError, RecursionError):
        return None
    return record if _is_sound(record) else None


def _is_sound(record: _Record) -> bool:
    return (
        isinstance(record.container, str)
        and isinstance(record.empty, dict)
        and all(isinstance(each, bool) for each in record.empty.values())
        and (record.before is None or isinstance(record.before, str))
    )


def _check_mounts(vllm: Mapping[str, Any], artifacts: Sequence[Artifact]) -> None:
    """Raises Refusal where two things would lie in one place, or a folder would have to be made where nothing can be written."""
    name, ours = vllm.get("name"), [PurePosixPath(each.mount_path) for each in artifacts]
    for mount in vllm.get("volumeMounts") or ():
        theirs = PurePosixPath(str(mount.get("mountPath") or ""))
        for path in ours:
            if theirs.is_relative_to(path) or (mount.get("readOnly") and path.is_relative_to(theirs)):
                told = f"container {name!r} mounts {mount.get('name')!r} at {theirs}, which is in the way of the artifacts at {path}"
                raise Refusal("MountConflict", f"{told}: take that mount away, or give the artifacts another mountPath")
    for index, path in enumerate(ours):
        if any(path.is_relative_to(other) for number, other in enumerate(ours) if number != index):
            raise Refusal("MountConflict", f"spec.model.artifacts: {path} lies within another's mountPath: give each a folder of its own")
