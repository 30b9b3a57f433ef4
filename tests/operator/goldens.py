"""The golden pods: each file of `golden/pods` holds a pod and perhaps what its resource says; `golden/outcomes` what becomes of it.

A third document is the resource's status, in an installation with agents.

After a wanted change: `python -m tests.operator.goldens` writes the outcomes anew, and the difference is read before it is kept.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from inference_cache_contract import pod as names
from inference_cache_operator.injection.container import VOLUMES
from inference_cache_operator.injection.fetching import is_fetching
from inference_cache_operator.injection.inject import Injected, Outcome, Refused, SidecarDefaults, Unchanged, inject
from inference_cache_operator.injection.undo import UNDO_ANNOTATION
from inference_cache_operator.resource import Resource

FOLDER: Final = Path(__file__).parent / "golden"
DEFAULTS: Final = SidecarDefaults("example.org/inference-cache-sidecar:0.1.0", "IfNotPresent")
WITH_AGENT: Final = replace(DEFAULTS, artifacts_agent="http://inference-cache-agent.inference-cache-system.svc:9182")
TOKEN: Final = "0011223344556677"
WHOLE: Final = ("plain", "artifacts-one", "artifacts-agent", "artifacts-agent-host-path")
"""The goldens whose outcomes show our containers and volumes with all that they have."""
_DIFFERENT: Final = ("image", "args", "ports", "env", "resources", "readinessProbe")
_OF_FETCHING: Final = ("args", "env", "resources")
_LONG: Final = frozenset({names.CONFIGURATION_ANNOTATION, UNDO_ANNOTATION})


@dataclass(frozen=True, slots=True)
class Golden:
    name: str
    pod: dict[str, Any]
    resource: Resource
    defaults: SidecarDefaults = DEFAULTS

    @property
    def outcome(self) -> Outcome:
        return self.injected(self.pod)

    def injected(self, pod: Mapping[str, Any], token: str = TOKEN) -> Outcome:
        """What becomes of another pod."""
        return inject(pod, self.resource, self.defaults, token)

    @property
    def file(self) -> Path:
        """What `described` says of the outcome."""
        return FOLDER / "outcomes" / f"{self.name}.yaml"


def resource(spec: Mapping[str, Any] | None = None, name: str = "faq-bot", **more: Any) -> Resource:
    whole = {"selector": {"matchLabels": {"app": "vllm"}}, "model": {"name": "acme-faq", "version": "v1.2.3"}, **(spec or {})}
    return Resource("llm", name, "11111111-1111-4111-8111-111111111111", "2026-01-01T00:00:00Z", 1, whole, **more)


def read(file: Path) -> Golden:
    pod, *more = yaml.safe_load_all(file.read_text())
    spec, status = (*more, None, None)[:2]
    return Golden(file.stem, pod, resource(spec, status=status or {}), DEFAULTS if status is None else WITH_AGENT)


@cache
def goldens() -> tuple[Golden, ...]:
    """Whoever edits a pod makes a copy."""
    return tuple(read(file) for file in sorted((FOLDER / "pods").glob("*.yaml")))


def described(golden: Golden) -> dict[str, Any]:
    """The outcome for people: what the pod is left with, or the edits by path, `None` for what was not there before."""
    match golden.outcome:
        case Unchanged(reason):
            return {"unchanged": reason}
        case Refused(reason, message, pod):
            return {"refused": reason, "message": message, **({} if pod is None else {"fetching": _described_edits(golden, pod)})}
        case Injected(pod, warnings):
            return {"injected": _described_edits(golden, pod), **({"warnings": list(warnings)} if warnings else {})}


def _described_edits(golden: Golden, pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    whole = golden.name in WHOLE
    return [{"at": path, "from": old, "to": new} for path, old, new in _edits("", _shown(golden.pod, whole), _shown(pod, whole))]


def _shown(pod: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    """By name rather than by place, without what is as long as the spec; and, unless `whole`, without what is the same in every pod."""
    shown: dict[str, Any] = json.loads(json.dumps(pod))
    spec, annotations = shown["spec"], shown["metadata"].get("annotations") or {}
    for name in _LONG & set(annotations):
        annotations[name] = "…"
    for field in ("containers", "initContainers", "volumes"):
        spec[field] = {each["name"]: each for each in spec.get(field) or ()}
    if not whole and "restartPolicy" in spec["initContainers"].get(names.SIDECAR_CONTAINER, {}):
        sidecar = spec["initContainers"][names.SIDECAR_CONTAINER]
        spec["initContainers"][names.SIDECAR_CONTAINER] = {field: sidecar[field] for field in _DIFFERENT if field in sidecar}
        spec["volumes"] = {name: volume for name, volume in spec["volumes"].items() if name not in VOLUMES}
    if not whole:
        for name, container in spec["initContainers"].items():
            if is_fetching(container):
                spec["initContainers"][name] = {field: container[field] for field in _OF_FETCHING if field in container}
    return shown


def _edits(path: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _edits(f"{path}/{name.replace('/', '~1')}", before.get(name), after.get(name))
    elif before != after:
        yield path, before, after


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        return True


def write_outcomes() -> None:
    for golden in goldens():
        golden.file.write_text(yaml.dump(described(golden), Dumper=_Dumper, sort_keys=False, width=140, allow_unicode=True))


if __name__ == "__main__":
    write_outcomes()
