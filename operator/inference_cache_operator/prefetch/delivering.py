"""Which way files take to the pods of a namespace: asks the API server, by the dry-run creation of a pod, what it lets in there."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_operator import errors
from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.injection.container import SidecarDefaults, security
from inference_cache_operator.injection.delivery import STORE_VOLUME, node_folder
from inference_cache_operator.injection.fetching import resources_ahead
from inference_cache_operator.prefetch.outcome import Found
from inference_cache_operator.prefetch.pods import LEFT_ALONE
from inference_cache_operator.resource import Resource

KEPT_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 10.0
"""Where nothing was found out."""
NAME: Final = "inference-cache-delivery"
"""The same every time: refusals quote it, and stand in a status."""
_LONGEST: Final = 200
"""Characters of what the API server says."""
_log = logging.getLogger(__name__)


def asking_pod(namespace: str, defaults: SidecarDefaults, *, folder: bool = True) -> dict[str, Any]:
    """Like one that has its files on the node, and else as harmless as can be; or without the `folder`, and the same otherwise."""
    container = {
        "name": "inference-cache-asks",
        "image": defaults.image or "inference-cache",
        "resources": resources_ahead(),
        "securityContext": security(),
        "volumeMounts": [{"name": STORE_VOLUME, "mountPath": "/mnt", "readOnly": True}] if folder else [],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": namespace, "annotations": dict(LEFT_ALONE)},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "OnFailure",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": STORE_VOLUME, **node_folder(namespace, defaults)}] if folder else [],
        },
    }


@dataclass(frozen=True, slots=True)
class _Answer:
    found: Found | None
    """None: nothing was found out."""
    at: float

    def holds(self, now: float) -> bool:
        return now - self.at < (AGAIN_SECONDS if self.found is None else KEPT_SECONDS)


class DeliveryProbe:
    """Asks at most once in `KEPT_SECONDS` for each namespace."""

    def __init__(self, cluster: Cluster, defaults: SidecarDefaults, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._defaults = defaults
        self._clock = clock
        self._answers: dict[str, _Answer] = {}

    async def found(self, resource: Resource) -> Found:
        """Raises NotLeading; what else fails leaves the former answer."""
        if resource.artifact_claim is not None:
            return Found("Claim")
        if not self._defaults.artifacts_agent:
            return Found("Pod")
        answer = self._answers.get(resource.namespace)
        if answer is None or not answer.holds(self._clock()):
            answer = self._answers[resource.namespace] = _Answer(await self._ask(resource.namespace), self._clock())
        return answer.found or _former(resource)

    async def _ask(self, namespace: str) -> Found | None:
        """A refusal of the same pod without the folder says nothing about the folder, as a quota's."""
        try:
            refusal = await self._refusal(namespace, folder=True)
            if refusal is None:
                return Found("HostPath")
            if await self._refusal(namespace, folder=False) is None:
                return Found("Agent", _shortened(refusal.said))
        except errors.ClusterError as error:
            refusal = error
        _log.warning("%s: not known which way files can take: %s", namespace, refusal)
        return None

    async def _refusal(self, namespace: str, *, folder: bool) -> errors.ClusterError | None:
        """Raises ClusterError where nothing was decided about the pod."""
        try:
            body = asking_pod(namespace, self._defaults, folder=folder)
            await self._cluster.create(paths.pods(namespace), body, dry_run=True)
        except (errors.NotAllowed, errors.BadObject) as error:
            return error
        return None


def _former(resource: Resource) -> Found:
    if resource.artifact_delivery not in ("HostPath", "Agent"):
        return Found()
    return Found(resource.artifact_delivery, str((resource.status.get("artifacts") or {}).get("message") or ""))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
