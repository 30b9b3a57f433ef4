"""The webhook's decision: the pod with the sidecar in it, or why it stays as it is. Pure; never raises on a pod that Kubernetes takes."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inference_cache_contract import pod as names
from inference_cache_contract.configuration import Configuration
from inference_cache_operator.injection import artifacts, checks, container, edits, layer, probes, undo
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.injection.finding import Found, annotations_of, containers_of, find
from inference_cache_operator.injection.naming import injection_digest, says_no_prefix_caching
from inference_cache_operator.injection.ports import Addresses, addresses
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.injection.resources import is_guaranteed, resources_are_the_pods
from inference_cache_operator.injection.revision import revision
from inference_cache_operator.resource import Resource

__all__ = ["Injected", "Outcome", "Refused", "SidecarDefaults", "Unchanged", "inject", "injection_digest", "is_injected", "stripped"]


@dataclass(frozen=True, slots=True)
class Injected:
    pod: dict[str, Any] = field(repr=False)
    warnings: tuple[str, ...] = ()
    """For whoever creates the pod."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    reason: str
    """Why there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The pod is selected, and cannot have the sidecar."""

    reason: str
    """One CamelCase word."""
    message: str
    """What is in the way, and what to do."""
    pod: dict[str, Any] | None = field(default=None, repr=False)
    """What is admitted instead; None: the pod as it came."""
    has_artifacts: bool = False
    """`pod` gets all the artifacts that it needs."""


Outcome = Injected | Unchanged | Refused


def inject(pod: Mapping[str, Any], resource: Resource, defaults: SidecarDefaults, drain_token: str) -> Outcome:
    """A pod that carries this very injection is Unchanged; one that carries another, as a copy of some pod does, gets this instead."""
    if annotations_of(pod).get(names.INJECT_ANNOTATION) == "false":
        return Unchanged(f"annotation {names.INJECT_ANNOTATION} is false")
    submitted = stripped(pod)
    if is_injected(pod) and _is_current(pod, submitted, resource, defaults):
        return Unchanged("the sidecar is in the pod already")
    plain = submitted if is_injected(pod) or layer.is_there(pod) else None
    try:
        checks.check_names_for_artifacts(submitted)
        needed = artifacts.artifacts_of(resource, _version(submitted, resource))
        fetches = layer.layer(submitted, needed, resource, defaults)
    except Refusal as refusal:
        return Refused(refusal.reason, refusal.message, plain)
    try:
        injected = _injected(submitted, resource, defaults, drain_token, artifacts.digests(needed))
    except Refusal as refusal:
        return _without_sidecar(refusal, submitted, plain, fetches)
    if fetches is not None:
        layer.apply(injected.pod, fetches)
    return injected


def _without_sidecar(refusal: Refusal, submitted: dict[str, Any], plain: dict[str, Any] | None, fetches: layer.Layer | None) -> Refused:
    """`submitted` is not edited yet."""
    if fetches is None:
        return Refused(refusal.reason, refusal.message, plain)
    layer.apply(submitted, fetches)
    return Refused(refusal.reason, refusal.message, submitted, has_artifacts=True)


def is_injected(pod: Mapping[str, Any]) -> bool:
    """Our sidecar is in the pod, whatever others have added to it since."""
    return names.INJECTION_ANNOTATION in annotations_of(pod) and undo.injected_record(pod) is not None


def stripped(pod: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the pod as it was submitted: without our edits, and with everybody else's."""
    copied: dict[str, Any] = copy.deepcopy(dict(pod))
    layer.undo(copied)
    record = undo.injected_record(pod)
    if record is not None and is_injected(pod):
        undo.undo(copied, record)
    return copied


def _is_current(pod: Mapping[str, Any], submitted: Mapping[str, Any], resource: Resource, defaults: SidecarDefaults) -> bool:
    """Also that vLLM is started as it was then: a copied pod's arguments may have been changed since, another webhook's variables added."""
    record, annotations = undo.injected_record(pod), annotations_of(pod)
    vllm = next((each for each in containers_of(submitted) if record is not None and each.get("name") == record.container), {})
    version = annotations.get(names.VERSION_ANNOTATION) or ""
    needed = _digests(resource, version)
    return (
        needed is not None
        and layer.is_current(pod, bool(needed), resource, defaults)
        and annotations.get(names.CACHE_ANNOTATION) == resource.name
        and annotations.get(names.INJECTION_ANNOTATION) == injection_digest(resource, defaults)
        and annotations.get(names.REVISION_ANNOTATION) == revision(submitted, vllm, version, needed, defaults.ignored_names)
    )


def _digests(resource: Resource, version: str) -> tuple[str, ...] | None:
    """None: such a pod cannot have its artifacts."""
    try:
        return artifacts.digests(artifacts.artifacts_of(resource, version))
    except Refusal:
        return None


def _version(submitted: Mapping[str, Any], resource: Resource) -> str:
    return annotations_of(submitted).get(names.VERSION_ANNOTATION) or resource.version_of_new_pods


def _injected(
    pod: dict[str, Any], resource: Resource, defaults: SidecarDefaults, drain_token: str, artifact_digests: tuple[str, ...]
) -> Injected:
    """Everything is decided before anything is edited. Raises Refusal."""
    checks.check_pod(pod)
    checks.check_version(annotations_of(pod).get(names.VERSION_ANNOTATION) or "")
    found = find(pod)
    vllm = next(each for each in containers_of(pod) if each.get("name") == found.name)
    checks.check_arguments(found)
    where = addresses(pod, found, container.has_features(resource))
    probes.check(vllm, where.port)
    warnings = checks.warnings(pod, vllm, found, resource)
    version = _version(pod, resource)
    stamp = container.Stamp(
        version, revision(pod, vllm, version, artifact_digests, defaults.ignored_names), drain_token, is_guaranteed(pod.get("spec") or {})
    )
    plan = _plan(pod, found, where, resource, defaults, stamp)
    checks.check_annotations({**annotations_of(pod), **plan.annotations})
    edits.apply(pod, plan)
    return Injected(pod, warnings)


def _plan(
    pod: Mapping[str, Any],
    found: Found,
    where: Addresses,
    resource: Resource,
    defaults: SidecarDefaults,
    stamp: container.Stamp,
) -> edits.Plan:
    sidecar = container.sidecar(resource, defaults, where, stamp)
    if resources_are_the_pods(pod.get("spec") or {}):
        del sidecar["resources"]
    prefix_caching = ["--no-enable-prefix-caching"] if says_no_prefix_caching(resource) and not checks.says_prefix_caching(found) else []
    return edits.Plan(
        container=found.name,
        place=found.command.place,
        words=[*prefix_caching, f"--port={where.moved}"],
        port=where.port,
        moved=where.moved,
        sidecar=sidecar,
        volumes=container.volumes(),
        annotations=_annotations(resource, defaults, stamp),
        drain_path=edits.drain_path(stamp.drain_token),
        drain_seconds=resource.rollout.drain_seconds,
    )


def _annotations(resource: Resource, defaults: SidecarDefaults, stamp: container.Stamp) -> dict[str, str]:
    return {
        names.CACHE_ANNOTATION: resource.name,
        names.VERSION_ANNOTATION: stamp.version,
        names.REVISION_ANNOTATION: stamp.revision,
        names.INJECTION_ANNOTATION: injection_digest(resource, defaults),
        names.CONFIGURATION_ANNOTATION: Configuration(resource.spec, ()).text(),
    }
