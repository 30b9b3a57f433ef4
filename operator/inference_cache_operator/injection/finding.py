"""Which container of a pod runs vLLM. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_contract.pod import CONTAINER_ANNOTATION, INJECT_ANNOTATION
from inference_cache_operator.injection.command import VllmCommand, image_is_vllm, read_command
from inference_cache_operator.injection.refusal import Refusal

_WORKER_LABEL: Final = "leaderworkerset.sigs.k8s.io/worker-index"
_NOBODY: Final = (
    f"no container of the pod is known to run vLLM: name it with the annotation {CONTAINER_ANNOTATION}, "
    f'or keep the cache out of this pod with {INJECT_ANNOTATION}: "false"'
)


@dataclass(frozen=True, slots=True)
class Found:
    name: str
    """Of the container; unlike any other's in its pod."""
    command: VllmCommand


def annotations_of(pod: Mapping[str, Any]) -> Mapping[str, str]:
    annotations: Mapping[str, str] | None = (pod.get("metadata") or {}).get("annotations")
    return annotations or {}


def containers_of(pod: Mapping[str, Any], *fields: str) -> list[Mapping[str, Any]]:
    spec = pod.get("spec") or {}
    return [each for field in fields or ("containers",) for each in spec.get(field) or ()]


def find(pod: Mapping[str, Any]) -> Found:
    """Raises Refusal."""
    named = annotations_of(pod).get(CONTAINER_ANNOTATION)
    return _find_by_command(pod) if named is None else _find_by_name(pod, named)


def likely_name(pod: Mapping[str, Any]) -> str:
    """Of vLLM's container, also where its command is not understood. Raises Refusal."""
    try:
        return find(pod).name
    except Refusal:
        likely = _likely(pod)
        if len(likely) != 1:
            raise
        return str(likely[0].get("name"))


def _likely(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The one that is named; else those whose image is vLLM's; else any."""
    named = annotations_of(pod).get(CONTAINER_ANNOTATION)
    if named is not None:
        return [each for each in containers_of(pod) if each.get("name") == named]
    return [each for each in containers_of(pod) if image_is_vllm(each.get("image") or "")] or containers_of(pod)


def _find_by_name(pod: Mapping[str, Any], named: str) -> Found:
    container = next((each for each in containers_of(pod) if each.get("name") == named), None)
    if container is None:
        raise Refusal(
            "ContainerNotFound", f"annotation {CONTAINER_ANNOTATION} names {named!r}, a container that the pod does not have: correct it"
        )
    command = _read(container, named=True)
    if command is None:
        raise Refusal("CommandUnknown", f"container {named!r} is not started by one plain `vllm serve …`")
    return Found(named, command)


def _find_by_command(pod: Mapping[str, Any]) -> Found:
    found: list[Found] = []
    refusals: list[Refusal] = []
    for container in containers_of(pod):
        try:
            command = _read(container, named=False)
        except Refusal as refusal:
            refusals.append(refusal)
        else:
            found += [] if command is None else [Found(container["name"], command)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(each.name for each in found)
        raise Refusal("SeveralVllmContainers", f"containers {names} all run vLLM: choose one with the annotation {CONTAINER_ANNOTATION}")
    if _is_worker(pod):
        raise Refusal("MultiNodeWorker", "the pod is a worker of a group over several nodes and serves nothing: select the leaders alone")
    raise refusals[0] if refusals else Refusal("NoVllmContainer", _NOBODY)


def _is_worker(pod: Mapping[str, Any]) -> bool:
    labels: Mapping[str, str] = (pod.get("metadata") or {}).get("labels") or {}
    return labels.get(_WORKER_LABEL, "0") != "0"


def _read(container: Mapping[str, Any], named: bool) -> VllmCommand | None:
    try:
        return read_command(container, named)
    except Refusal as refusal:
        raise Refusal(refusal.reason, f"container {container.get('name')!r} {refusal.message}") from None
