"""A workload that makes pods, as far as rolling it goes. Pure."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inference_cache_contract.pod import ROLLOUT_ANNOTATION, VERSION_ANNOTATION


@dataclass(frozen=True, slots=True)
class Workload:
    kind: str
    """`Deployment`, `StatefulSet` or `DaemonSet`."""
    namespace: str
    name: str
    uid: str
    body: Mapping[str, Any] = field(repr=False)

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.body.get("spec") or {}

    @property
    def status(self) -> Mapping[str, Any]:
        return self.body.get("status") or {}

    @property
    def template_annotations(self) -> Mapping[str, str]:
        return ((self.spec.get("template") or {}).get("metadata") or {}).get("annotations") or {}

    @property
    def triggered(self) -> str | None:
        """What we last wrote into its template."""
        return self.template_annotations.get(ROLLOUT_ANNOTATION)

    @property
    def pinned_version(self) -> str | None:
        """That the template itself names."""
        return self.template_annotations.get(VERSION_ANNOTATION)

    @property
    def replicas(self) -> int:
        if self.kind == "DaemonSet":
            return int(self.status.get("desiredNumberScheduled") or 0)
        replicas = self.spec.get("replicas")
        return 1 if replicas is None else int(replicas)


def read_workload(kind: str, body: Mapping[str, Any]) -> Workload:
    metadata = body["metadata"]
    return Workload(kind, metadata["namespace"], metadata["name"], metadata["uid"], body)


def template_digest(workload: Workload) -> str:
    """Of the template but for our own annotation."""
    template = dict(workload.spec.get("template") or {})
    metadata = dict(template.get("metadata") or {})
    metadata["annotations"] = {key: value for key, value in workload.template_annotations.items() if key != ROLLOUT_ANNOTATION}
    template["metadata"] = metadata
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]


def trigger_value(workload: Workload, version: str, injection: str) -> str:
    """For the template's annotation: another one whenever rolling could do something that it did not do before."""
    text = json.dumps([template_digest(workload), version, injection])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_rolling(workload: Workload) -> bool:
    """Its owner, or we, changed it, and it has not replaced all pods yet."""
    status, generation = workload.status, (workload.body.get("metadata") or {}).get("generation") or 0
    if int(status.get("observedGeneration") or 0) < int(generation):
        return True
    if workload.kind == "Deployment":
        updated, total = int(status.get("updatedReplicas") or 0), int(status.get("replicas") or 0)
        return updated < workload.replicas or total > updated
    if workload.kind == "StatefulSet":
        return bool(status.get("updateRevision")) and status.get("updateRevision") != status.get("currentRevision")
    return int(status.get("updatedNumberScheduled") or 0) < workload.replicas


def interruption(workload: Workload) -> str | None:
    """Why rolling it would leave no pod Ready at some time; None where its strategy keeps one."""
    if workload.spec.get("paused"):
        return "it is paused"
    if workload.kind == "Deployment":
        return _deployment(workload)
    if workload.kind == "StatefulSet":
        return _stateful_set(workload)
    return _daemon_set(workload)


def remedy(workload: Workload) -> str:
    """What somebody does to a workload for which there is an `interruption`."""
    name = f"{workload.kind.lower()}/{workload.name} -n {workload.namespace}"
    strategy = workload.spec.get("updateStrategy") or {}
    if workload.spec.get("paused"):
        return f"`kubectl rollout resume {name}`"
    if strategy.get("type") == "OnDelete":
        return "delete its pods one by one"
    if (strategy.get("rollingUpdate") or {}).get("partition"):
        return "take the partition away, then `kubectl rollout restart " + name + "`"
    return f"`kubectl rollout restart {name}`"


def _deployment(workload: Workload) -> str | None:
    strategy = workload.spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return "its strategy is Recreate"
    unavailable = _share((strategy.get("rollingUpdate") or {}).get("maxUnavailable", "25%"), workload.replicas, math.floor)
    surge = _share((strategy.get("rollingUpdate") or {}).get("maxSurge", "25%"), workload.replicas, math.ceil)
    if unavailable == 0 and surge == 0:
        unavailable = 1
    return "its maxUnavailable lets all pods go at once" if 0 < workload.replicas <= unavailable else None


def _stateful_set(workload: Workload) -> str | None:
    strategy = workload.spec.get("updateStrategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    if strategy.get("type") == "OnDelete":
        return "its update strategy is OnDelete"
    if rolling.get("partition"):
        return "its update strategy has a partition"
    unavailable = max(1, _share(rolling.get("maxUnavailable", 1), workload.replicas, math.ceil))
    return "it has no pod to spare" if 0 < workload.replicas <= unavailable else None


def _daemon_set(workload: Workload) -> str | None:
    strategy = workload.spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return "its update strategy is OnDelete"
    rolling = strategy.get("rollingUpdate") or {}
    if _share(rolling.get("maxSurge", 0), workload.replicas, math.ceil) > 0:
        return None
    unavailable = max(1, _share(rolling.get("maxUnavailable", 1), workload.replicas, math.ceil))
    return "it has no pod to spare" if 0 < workload.replicas <= unavailable else None


def _share(raw: Any, of: int, rounded: Any) -> int:
    """A number, or a percentage of `of`."""
    if isinstance(raw, str) and raw.endswith("%"):
        return int(rounded(int(raw[:-1]) * of / 100))
    return int(raw or 0)
