"""Where things are in the API server. Pure."""

from typing import Final
from urllib.parse import quote

from inference_cache_contract.pod import API_VERSION, PLURAL

_GROUPS: Final = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets", "ReplicaSet": "replicasets"}
WORKLOADS: Final = tuple(_GROUPS)


def caches(namespace: str | None = None) -> str:
    return f"/apis/{API_VERSION}{_within(namespace)}/{PLURAL}"


def cache(namespace: str, name: str) -> str:
    return f"{caches(namespace)}/{quote(name, safe='')}"


def cache_status(namespace: str, name: str) -> str:
    return f"{cache(namespace, name)}/status"


def pods(namespace: str | None = None) -> str:
    return f"/api/v1{_within(namespace)}/pods"


def pod(namespace: str, name: str) -> str:
    return f"{pods(namespace)}/{quote(name, safe='')}"


def eviction(namespace: str, name: str) -> str:
    return f"{pod(namespace, name)}/eviction"


def workload(kind: str, namespace: str, name: str) -> str:
    """Of the group `apps`; raises KeyError for a kind that is not in `WORKLOADS`."""
    return f"/apis/apps/v1{_within(namespace)}/{_GROUPS[kind]}/{quote(name, safe='')}"


def lease(namespace: str, name: str) -> str:
    return f"{leases(namespace)}/{quote(name, safe='')}"


def leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1{_within(namespace)}/leases"


def events(namespace: str) -> str:
    return f"/apis/events.k8s.io/v1{_within(namespace)}/events"


def _within(namespace: str | None) -> str:
    return "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
