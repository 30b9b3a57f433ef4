"""A pod as the controller uses it, read from what the API server says. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from inference_cache_contract.pod import (
    CACHE_ANNOTATION,
    CONFIGURATION_ANNOTATION,
    INJECTION_ANNOTATION,
    SIDECAR_CONTAINER,
    VERSION_ANNOTATION,
)
from inference_cache_operator.versions.times import seconds_of

_ENDED: Final = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Owner:
    kind: str
    name: str
    uid: str
    api_version: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    created: float
    """Seconds since 1970."""
    ready: bool
    ended: bool
    """All of its containers, for good."""
    ending_by: float | None
    """When it is to be gone at the latest; None: it is not being deleted."""
    ip: str
    owner: Owner | None
    """Its controller."""
    body: Mapping[str, Any] = field(repr=False)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def ending(self) -> bool:
        return self.ending_by is not None

    @property
    def cache(self) -> str | None:
        """The resource that it was injected for."""
        return self.annotations.get(CACHE_ANNOTATION)

    @property
    def version(self) -> str:
        return self.annotations.get(VERSION_ANNOTATION, "")

    @property
    def injection(self) -> str:
        return self.annotations.get(INJECTION_ANNOTATION, "")

    @property
    def configuration(self) -> str | None:
        return self.annotations.get(CONFIGURATION_ANNOTATION)


def read_pod(body: Mapping[str, Any]) -> Pod:
    metadata, status = body["metadata"], body.get("status") or {}
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        created=seconds_of(metadata.get("creationTimestamp")) or 0.0,
        ready=any(each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or ()),
        ended=status.get("phase") in _ENDED,
        ending_by=seconds_of(metadata.get("deletionTimestamp")),
        ip=status.get("podIP") or "",
        owner=_controller(metadata.get("ownerReferences") or ()),
        body=body,
    )


def sidecar_state(pod: Pod) -> Mapping[str, Any]:
    """The state of the sidecar's container as kubelet says it: `running`, `waiting` or `terminated`; empty where it says nothing yet."""
    statuses = (pod.body.get("status") or {}).get("initContainerStatuses") or ()
    state = next((each.get("state") for each in statuses if each.get("name") == SIDECAR_CONTAINER), None)
    return state if isinstance(state, Mapping) else {}


def sidecar_image(pod: Pod) -> str:
    """Empty where the pod has no sidecar."""
    containers = (pod.body.get("spec") or {}).get("initContainers") or ()
    return next((str(each.get("image") or "") for each in containers if each.get("name") == SIDECAR_CONTAINER), "")


def _controller(references: Any) -> Owner | None:
    found = next((each for each in references if each.get("controller")), None)
    return None if found is None else Owner(found["kind"], found["name"], found["uid"], found.get("apiVersion") or "")
