"""Events about a resource, of the group events.k8s.io. Pure; the controller creates them and does without where it cannot."""

import hashlib
from datetime import UTC, datetime
from typing import Any, Final

from inference_cache_contract.pod import API_VERSION, GROUP, KIND
from inference_cache_operator.resource import Resource
from inference_cache_operator.versions.telling import Said

CONTROLLER: Final = f"{GROUP}/operator"
MAX_NOTE: Final = 1024


def event(resource: Resource, said: Said, instance: str, now: float) -> dict[str, Any]:
    """`instance`: this operator's pod."""
    mark = hashlib.sha256(f"{resource.uid} {said.reason} {said.message} {now}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{resource.name[:200]}.{mark}", "namespace": resource.namespace},
        "eventTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:128],
        "action": said.reason,
        "reason": said.reason,
        "type": said.type,
        "note": said.message[:MAX_NOTE],
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": resource.namespace,
            "name": resource.name,
            "uid": resource.uid,
        },
    }
