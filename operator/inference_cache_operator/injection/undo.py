"""What was changed in a pod, kept in an annotation of it, and the way back. Pure.

Things are found again by name, not by place: other webhooks may have added to the pod since.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from inference_cache_contract.pod import GROUP, INJECTED_LABEL, SIDECAR_CONTAINER
from inference_cache_operator.injection import probes, shell
from inference_cache_operator.injection.container import VOLUMES

UNDO_ANNOTATION: Final = f"{GROUP}/undo"
"""On an injected pod: what `stripped` needs to make the pod as it was submitted."""


@dataclass(frozen=True, slots=True)
class Undo:
    container: str
    moved: int
    """The port that vLLM was moved to."""
    place: str
    """`command` or `args`: where words were added."""
    words: list[str]
    shell_index: int | None
    """Of the text that they were added to; None: they are words of their own."""
    probes: dict[str, int | str]
    """What their ports were, by probe."""
    grace: list[int | None]
    """Before and after; empty where it was long enough."""
    drains: bool
    """The preStop hook is ours."""
    annotations: dict[str, str | None]
    """Those that we wrote: their values before, None where there were none."""
    label: str | None = None
    """What stood under the label that we wrote."""
    empty: dict[str, bool] = field(default_factory=dict)
    """Lists and mappings that were not there, by path: True where they stood as null."""

    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


def read_undo(text: str) -> Undo | None:
    """None where this is not what `Undo.text` wrote: anybody can write an annotation."""
    try:
        record = Undo(**json.loads(text))
    except (TypeError, ValueError, RecursionError):
        return None
    return record if _is_sound(record) else None


def _is_sound(record: Undo) -> bool:
    mappings = ((record.probes, int | str), (record.annotations, str | None), (record.empty, bool))
    lists = ((record.words, str), (record.grace, int | None))
    return (
        isinstance(record.container, str)
        and isinstance(record.moved, int)
        and record.place in ("command", "args")
        and isinstance(record.drains, bool)
        and (record.shell_index is None or (isinstance(record.shell_index, int) and record.shell_index >= 0))
        and all(isinstance(each, list) and all(isinstance(item, kind) for item in each) for each, kind in lists)
        and all(isinstance(each, dict) and all(isinstance(item, kind) for item in each.values()) for each, kind in mappings)
        and len(record.grace) in (0, 2)
        and (record.label is None or isinstance(record.label, str))
    )


def addition(words: list[str]) -> str:
    """As it stands in a shell's text."""
    return "".join(f" {word}" for word in words)


def undo(pod: dict[str, Any], record: Undo) -> None:
    """Edits `pod`."""
    spec = pod["spec"]
    spec["initContainers"] = [each for each in spec.get("initContainers") or () if each.get("name") != SIDECAR_CONTAINER]
    spec["volumes"] = [each for each in spec.get("volumes") or () if each.get("name") not in VOLUMES]
    if record.grace and spec.get("terminationGracePeriodSeconds") == record.grace[1]:
        put_back(spec, "terminationGracePeriodSeconds", record.grace[0])
    container = next((each for each in spec.get("containers") or () if each.get("name") == record.container), None)
    if container is not None:
        _undo_container(container, record)
        clear(container, ("lifecycle", record.place), record.empty, "container.")
    _undo_annotations(pod, record)
    _undo_label(pod["metadata"], record)
    clear(spec, ("initContainers", "volumes", "terminationGracePeriodSeconds"), record.empty, "spec.")


def _undo_container(container: dict[str, Any], record: Undo) -> None:
    probes.restore(container, record.probes, record.moved)
    words = container.get(record.place) or []
    if record.shell_index is None:
        container[record.place] = _without(words, record.words)
    elif record.shell_index < len(words):
        words[record.shell_index] = shell.remove(words[record.shell_index], addition(record.words))
    lifecycle = container.get("lifecycle")
    if record.drains and lifecycle:
        lifecycle.pop("preStop", None)
        clear(lifecycle, ("preStop",), record.empty, "lifecycle.")


def _undo_annotations(pod: dict[str, Any], record: Undo) -> None:
    annotations = pod["metadata"].get("annotations") or {}
    for name, before in record.annotations.items():
        put_back(annotations, name, before)
    annotations.pop(UNDO_ANNOTATION, None)
    put_back(annotations, UNDO_ANNOTATION, record.annotations.get(UNDO_ANNOTATION))
    pod["metadata"]["annotations"] = annotations
    clear(pod["metadata"], ("annotations",), record.empty, "metadata.")


def _undo_label(metadata: dict[str, Any], record: Undo) -> None:
    metadata["labels"] = metadata.get("labels") or {}
    put_back(metadata["labels"], INJECTED_LABEL, record.label)
    clear(metadata, ("labels",), record.empty, "metadata.")


def _without(words: list[str], added: list[str]) -> list[str]:
    """The last of each goes: ours were added last."""
    left = list(words)
    for word in reversed(added):
        at = len(left) - 1 - left[::-1].index(word) if word in left else None
        if at is not None:
            del left[at]
    return left


def put_back(mapping: dict[str, Any], name: str, before: Any) -> None:
    """None: there was nothing."""
    if before is None:
        mapping.pop(name, None)
    else:
        mapping[name] = before


def empties(looked_at: Iterable[tuple[str, Mapping[str, Any], Iterable[str]]]) -> dict[str, bool]:
    """Of what is about to be filled, by prefix and name: what is not there (False) or null (True)."""
    return {prefix + name: name in mapping for prefix, mapping, names in looked_at for name in names if mapping.get(name) is None}


def clear(mapping: dict[str, Any], names: Iterable[str], empty: Mapping[str, bool], prefix: str) -> None:
    """What was not there before, and holds nothing now, goes again."""
    for name in names:
        was_null = empty.get(prefix + name)
        if was_null is None or mapping.get(name):
            continue
        mapping.pop(name, None)
        if was_null:
            mapping[name] = None


def injected_record(pod: Mapping[str, Any]) -> Undo | None:
    """None: there is no sidecar of ours in the pod."""
    init = (pod.get("spec") or {}).get("initContainers") or ()
    if not any(each.get("name") == SIDECAR_CONTAINER and each.get("restartPolicy") == "Always" for each in init):
        return None
    text = ((pod.get("metadata") or {}).get("annotations") or {}).get(UNDO_ANNOTATION)
    return None if text is None else read_undo(text)
