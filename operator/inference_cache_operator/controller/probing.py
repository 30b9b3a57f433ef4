"""Asks the webhook, by the dry-run creation of a pod in the operator's own namespace, whether pods pass by it. Nothing is created."""

import logging
import time
from typing import Any, Final

from inference_cache_operator import errors
from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.webhook.deciding import PROBE_ANNOTATION, PROBED_ANNOTATION, offers

KEPT_SECONDS: Final = 5.0
_log = logging.getLogger(__name__)


def probe_pod(namespace: str) -> dict[str, Any]:
    """Passes Pod Security `restricted`, and the webhook's match conditions."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "inference-cache-probe-", "namespace": namespace, "annotations": {PROBE_ANNOTATION: "true"}},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [{"name": "vllm", "image": "vllm/vllm-openai", "args": ["probe"], "securityContext": security}],
        },
    }


class WebhookProbe:
    """`offer` names what this installation injects, as `installation_digest` does."""

    def __init__(self, cluster: Cluster, namespace: str, offer: str) -> None:
        self._cluster = cluster
        self._offer = offer
        self._namespace = namespace
        self._answer: tuple[bool, float] | None = None

    async def reached(self) -> bool:
        """And every webhook that answered injects what this controller expects. Asked at most once in `KEPT_SECONDS`."""
        now = time.monotonic()
        if self._answer is None or now - self._answer[1] >= KEPT_SECONDS:
            self._answer = (await self._ask(), now)
        return self._answer[0]

    async def _ask(self) -> bool:
        try:
            answer = await self._cluster.create(paths.pods(self._namespace), probe_pod(self._namespace), dry_run=True)
        except errors.ClusterError as error:
            _log.warning("webhook not probed: %s", error)
            return False
        return set(offers((answer["metadata"].get("annotations") or {}).get(PROBED_ANNOTATION, ""))) == {self._offer}
