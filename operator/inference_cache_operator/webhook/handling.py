"""One admission request from reading the resources to the answer. `app` registers it with kopf; whatever fails here lets the pod pass."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never, cast

import kopf

from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.errors import ClusterError
from inference_cache_operator.injection.inject import Outcome, SidecarDefaults, inject
from inference_cache_operator.resource import Resource, read_resource
from inference_cache_operator.webhook.deciding import PROBED_ANNOTATION, Answer, Asked, Asker, Change, Decision, Deny, Leave, Warn, decide
from inference_cache_operator.webhook.index import ResourceIndex
from inference_cache_operator.webhook.measuring import Measures
from inference_cache_operator.webhook.telling import Telling

logger = logging.getLogger(__name__)
_TOKEN_BYTES = 16


@dataclass(frozen=True, slots=True)
class Request:
    asked: Asked
    patch: kopf.Patch
    warnings: list[str]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Admission:
    cluster: Cluster
    index: ResourceIndex
    asker: Asker
    defaults: SidecarDefaults
    measures: Measures
    telling: Telling
    list_deadline: float
    namespaces: tuple[str, ...] = ()
    """Where resources may be read; none: everywhere."""
    new_token: Callable[[], str] = field(default=lambda: secrets.token_urlsafe(_TOKEN_BYTES), repr=False)

    async def admit(self, request: Request) -> None:
        """Writes patch and warnings. Raises kopf.AdmissionError where the pod is denied."""
        start = time.perf_counter()
        try:
            resources = await self._resources(request.asked.namespace)
            decision = decide(request.asked, resources, self.asker, self._inject)
        except Exception as error:
            # A pod must start, whatever is wrong with us.
            self.measures.admissions.labels("error").inc()
            logger.exception("admission failed", extra={"fields": {"namespace": request.asked.namespace, "error": type(error).__name__}})
            if request.asked.required:
                raise kopf.AdmissionError("the artifacts of this pod cannot be provided for now: the webhook failed", code=500) from error
            return
        self.measures.seconds.observe(time.perf_counter() - start)
        self._carry_out(decision, request)

    async def _resources(self, namespace: str) -> Sequence[Resource]:
        """As they are now: a resource and its pods often come in one apply, before any watch tells of it."""
        if self.namespaces and namespace not in self.namespaces:
            return ()
        try:
            async with asyncio.timeout(self.list_deadline):
                listed = await self.cluster.list(paths.caches(namespace))
        except (ClusterError, TimeoutError) as error:
            self.measures.reads_failed.inc()
            logger.warning("resources of %s cannot be read, the index is asked: %s", namespace, error or type(error).__name__)
            return self.index.within(namespace)
        return [read_resource(body) for body in listed]

    def _inject(self, pod: Mapping[str, Any], resource: Resource) -> Outcome:
        return inject(pod, resource, self.defaults, self.new_token())

    def _carry_out(self, decision: Decision, request: Request) -> None:
        self._count(decision, request)
        match decision:
            case Change():
                request.warnings.extend(decision.warnings)
                request.patch.fns.append(_becomes(decision.pod))
            case Answer():
                request.patch.metadata.annotations[PROBED_ANNOTATION] = decision.value
            case Leave():
                request.warnings.extend(decision.warnings)
            case Warn():
                request.warnings.extend(decision.warnings)
                if decision.pod is not None:
                    request.patch.fns.append(_becomes(decision.pod))
                self._tell(decision.resource, decision.reason, f"{_name(request.asked.pod)}: {decision.message}", request)
            case Deny():
                self._tell(decision.resource, decision.reason, f"{_name(request.asked.pod)} was denied: {decision.message}", request)
                raise kopf.AdmissionError(decision.message, code=422)
            case _:
                assert_never(decision)

    def _tell(self, resource: Resource, reason: str, note: str, request: Request) -> None:
        if not request.dry_run:
            self.telling.say(resource, reason, note)

    def _count(self, decision: Decision, request: Request) -> None:
        outcome, reason = _outcome(decision)
        self.measures.admissions.labels(outcome).inc()
        fields = {"namespace": request.asked.namespace, "pod": _name(request.asked.pod), "outcome": outcome, "reason": reason}
        # The controller probes every few seconds while it waits.
        level = logging.DEBUG if isinstance(decision, Answer) else logging.INFO
        logger.log(level, "pod %s", outcome, extra={"fields": {name: value for name, value in fields.items() if value}})


def _outcome(decision: Decision) -> tuple[str, str]:
    match decision:
        case Change():
            return "injected", ""
        case Answer():
            return "probed", ""
        case Leave():
            return "unchanged", decision.reason
        case Warn():
            return "refused", decision.reason
        case Deny():
            return "denied", decision.reason
    assert_never(decision)


def _becomes(pod: Mapping[str, Any]) -> Callable[[kopf.RawBody], None]:
    def edit(body: kopf.RawBody) -> None:
        plain = cast(dict[str, Any], body)
        plain.clear()
        plain.update(pod)

    return edit


def _name(pod: Mapping[str, Any]) -> str:
    """A pod of a ReplicaSet has no name yet: what its owner calls its pods, so that equal ones are told once."""
    metadata = pod.get("metadata") or {}
    return str(metadata.get("generateName") or metadata.get("name") or "")
