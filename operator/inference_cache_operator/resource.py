"""An InferenceCache as the operator uses it, read from what the API server says. Pure.

The CRD fills in defaults and refuses what is malformed; what is read here falls back to the same defaults, so that a resource of an
older CRD does no harm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inference_cache_contract.pod import FLUSH_ANNOTATION
from inference_cache_contract.quantity import parse_duration

DRAIN_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Rollout:
    trigger: str = "Auto"
    """`Auto` or `Manual`."""
    flush: str = "AfterRollout"
    """`AfterRollout` or `Immediate`."""
    retain_seconds: float = 0.0
    drain_seconds: float = DRAIN_SECONDS


@dataclass(frozen=True, slots=True)
class Resource:
    namespace: str
    name: str
    uid: str
    created: str
    """RFC 3339 in UTC, so that texts sort as times do."""
    generation: int
    spec: Mapping[str, Any] = field(repr=False)
    """As the API server holds it."""
    status: Mapping[str, Any] = field(default_factory=dict, repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict, repr=False)
    deleting: bool = False
    resource_version: str = ""
    """Of the API server: what was read; a write that names it is refused where somebody wrote since."""

    @property
    def cache_name(self) -> str:
        """As the sidecars call their cache."""
        return f"{self.namespace}/{self.name}"

    @property
    def selector(self) -> Mapping[str, Any]:
        return _mapping(self.spec, "selector")

    @property
    def version(self) -> str:
        return str(_mapping(self.spec, "model").get("version") or "")

    @property
    def active_version(self) -> str | None:
        """None before the controller has seen the resource."""
        active = self.status.get("activeVersion")
        return None if active is None else str(active)

    @property
    def updating_version(self) -> str | None:
        updating = self.status.get("updatingVersion")
        return None if updating is None else str(updating)

    @property
    def phase(self) -> str | None:
        """`Stable`, `Preloading`, `Updating`, `Draining` or `Flushing`; None before the controller has seen the resource."""
        phase = self.status.get("phase")
        return None if phase is None else str(phase)

    @property
    def version_of_new_pods(self) -> str:
        """What a pod serves whose template does not say: the new version not before its artifacts are there."""
        if self.artifacts and self.phase in ("Stable", "Preloading") and self.active_version is not None:
            return self.active_version
        return self.version

    @property
    def artifacts(self) -> Sequence[Mapping[str, Any]]:
        return _mappings(_mapping(self.spec, "model").get("artifacts"))

    def artifacts_of(self, version: str) -> Sequence[Mapping[str, Any]] | None:
        """What pods of a version need on disk: known of the spec's version and of the active one. None: nobody knows any more."""
        active = _mappings(self.status.get("activeArtifacts"))
        if version == self.version:
            return self.artifacts
        if version == self.active_version:
            return active
        return None if self.artifacts or active else ()

    @property
    def artifact_claim(self) -> str | None:
        """The volume claim that fetched files are kept on; None: every pod keeps its own."""
        storage = _mapping(_mapping(self.spec, "model"), "artifactStorage")
        return str(_mapping(storage, "persistentVolumeClaim").get("claimName") or "") or None

    @property
    def artifact_delivery(self) -> str:
        """How its namespace lets files be brought to pods, as the controller found; empty: it does not know yet."""
        return str(_mapping(self.status, "artifacts").get("delivery") or "")

    @property
    def flush_requested(self) -> str | None:
        """A value of the user's; every new one flushes once."""
        return self.annotations.get(FLUSH_ANNOTATION) or None

    @property
    def rollout(self) -> Rollout:
        raw = _mapping(self.spec, "rollout")
        return Rollout(
            trigger=str(raw.get("trigger") or "Auto"),
            flush=str(raw.get("flush") or "AfterRollout"),
            retain_seconds=_seconds(raw.get("retain"), 0.0),
            drain_seconds=_seconds(raw.get("drainTimeout"), DRAIN_SECONDS),
        )


def read_resource(body: Mapping[str, Any]) -> Resource:
    metadata = body["metadata"]
    return Resource(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        created=metadata.get("creationTimestamp") or "",
        generation=metadata.get("generation", 0),
        spec=body.get("spec") or {},
        status=body.get("status") or {},
        annotations=metadata.get("annotations") or {},
        deleting=metadata.get("deletionTimestamp") is not None,
        resource_version=metadata.get("resourceVersion") or "",
    )


def _mapping(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = raw.get(name)
    return inner if isinstance(inner, Mapping) else {}


def _mappings(raw: object) -> Sequence[Mapping[str, Any]]:
    return [each for each in raw if isinstance(each, Mapping)] if isinstance(raw, list) else []


def _seconds(raw: object, default: float) -> float:
    try:
        return default if raw is None else parse_duration(raw)
    except ValueError:
        return default
