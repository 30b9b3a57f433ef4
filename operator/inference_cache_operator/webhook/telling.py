"""Events about pods that were admitted without the cache, on their resource, once each. `handling` hands them over, a task writes them."""

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client import Counter

from inference_cache_contract.pod import API_VERSION, KIND
from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.errors import ClusterError, Conflicting
from inference_cache_operator.resource import Resource

logger = logging.getLogger(__name__)
_WAITING: Final = 1000
_REMEMBERED: Final = 10_000
_KEPT_SECONDS: Final = 3600.0
"""As long as API servers keep events by default."""
_NOTE: Final = 1024
"""Characters that the API takes."""


class Telling:
    """`say` never waits and never fails; `run` writes."""

    def __init__(self, cluster: Cluster, instance: str, failed: Counter, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._instance = instance
        self._failed = failed
        self._clock = clock
        self._said: dict[str, float] = {}
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)

    def say(self, resource: Resource, reason: str, note: str) -> None:
        body = event_body(resource, reason, note, self._instance, datetime.now(UTC))
        name = body["metadata"]["name"]
        if self._clock() - self._said.get(name, -math.inf) < _KEPT_SECONDS:
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[name] = self._clock()
        try:
            self._queue.put_nowait(body)
        except asyncio.QueueFull:
            self._failed.inc()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            body = await self._queue.get()
            try:
                await self._cluster.create(paths.events(body["metadata"]["namespace"]), body)
            except Conflicting:
                pass  # Another replica has said it.
            except ClusterError as error:
                self._failed.inc()
                self._said.pop(body["metadata"]["name"], None)
                logger.warning("event cannot be written: %s", error)


def event_body(resource: Resource, reason: str, note: str, instance: str, now: datetime) -> dict[str, Any]:
    """Its name says what it says, so that equal ones are one. It is made anew when the API server has forgotten it."""
    digest = hashlib.sha256("\0".join((resource.uid, reason, note)).encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{resource.name[:200]}.{digest}", "namespace": resource.namespace},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Warning",
        "reason": reason,
        "action": "Admit",
        "note": note[:_NOTE],
        "reportingController": "inferencecache.io/webhook",
        "reportingInstance": instance[:128],
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": resource.namespace,
            "name": resource.name,
            "uid": resource.uid,
        },
    }
