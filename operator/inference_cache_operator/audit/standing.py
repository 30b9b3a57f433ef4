"""Tells of one selected pod whether it is injected as it should be. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from inference_cache_contract.pod import INJECT_ANNOTATION
from inference_cache_operator.audit.images import is_kept_from_its_image
from inference_cache_operator.audit.pods import Pod
from inference_cache_operator.injection.naming import asked_part
from inference_cache_operator.resource import Resource


class Standing(Enum):
    INJECTED = "injected"
    MISSING = "missing"
    """Not injected, though it could be."""
    OUTDATED = "outdated"
    """Injected otherwise than a pod would be now, or for another version."""
    REFUSED = "refused"
    """Not injected, and would not be if it were made again."""
    EXCLUDED = "excluded"
    """Its template says that it shall not be injected."""


class Injector(Protocol):
    """What the audit needs to know of injection."""

    def is_injected(self, pod: Mapping[str, Any]) -> bool: ...

    def digest(self, resource: Resource) -> str:
        """Names what a pod of this resource gets now, as `injection.naming` does; equal to the annotation of a pod that has it."""
        ...

    def refusal(self, pod: Mapping[str, Any], resource: Resource) -> str | None:
        """Why a pod that is not injected would be refused; None where it would be injected."""
        ...

    def has_other_files(self, pod: Mapping[str, Any], resource: Resource) -> bool:
        """Whether files are fetched into the pod, and others than a pod would get now."""
        ...


@dataclass(frozen=True, slots=True)
class Audited:
    pod: Pod
    standing: Standing
    reason: str = ""
    """For people."""
    lags: bool = False
    """Outdated only by what the operator's installation adds, as after its upgrade: nobody's pods are replaced for that."""
    has_other_files: bool = False
    """It cannot have the sidecar, and has the files of another version."""

    @property
    def to_replace(self) -> bool:
        outdated = self.standing in (Standing.MISSING, Standing.OUTDATED) or self.has_other_files
        return outdated and not self.lags and not self.pod.ending


def audit(pods: Iterable[Pod], resource: Resource, injector: Injector) -> list[Audited]:
    return [_audited(pod, resource, injector) for pod in pods if not pod.ended]


def _audited(pod: Pod, resource: Resource, injector: Injector) -> Audited:
    if injector.is_injected(pod.body):
        return _of_injected(pod, resource, injector)
    if pod.annotations.get(INJECT_ANNOTATION) == "false":
        return Audited(pod, Standing.EXCLUDED)
    refusal = injector.refusal(pod.body, resource)
    if refusal is None:
        return Audited(pod, Standing.MISSING)
    return Audited(pod, Standing.REFUSED, refusal, has_other_files=injector.has_other_files(pod.body, resource))


def _of_injected(pod: Pod, resource: Resource, injector: Injector) -> Audited:
    if pod.cache != resource.name:
        return Audited(pod, Standing.OUTDATED, f"is injected for {pod.cache}")
    if pod.version != resource.version_of_new_pods:
        return Audited(pod, Standing.OUTDATED, f"serves version {pod.version!r}")
    digest = injector.digest(resource)
    if asked_part(pod.injection) != asked_part(digest):
        return Audited(pod, Standing.OUTDATED, "is injected otherwise than now")
    if pod.injection != digest:
        # One that waits for an image which the installation no longer names would wait for ever; its end interrupts nothing.
        lags = not is_kept_from_its_image(pod)
        return Audited(pod, Standing.OUTDATED, "is injected as another version of the operator's installation would", lags=lags)
    return Audited(pod, Standing.INJECTED)
