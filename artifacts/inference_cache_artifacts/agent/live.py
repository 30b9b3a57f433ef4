"""Which trees the pods of a node mount, and which resources there are: read from what the API server lists. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from inference_cache_artifacts.handover.protocol import mounted_tree

_OVER: Final = frozenset({"Succeeded", "Failed"})
_CONTAINERS: Final = ("initContainers", "containers", "ephemeralContainers")

Used = Mapping[str, frozenset[str]]
"""Trees by namespace."""


def mounted_trees(pods: Mapping[str, Any]) -> Used:
    """Of a PodList, what pods mount that have not come to their end."""
    found: dict[str, set[str]] = {}
    for pod in pods.get("items") or ():
        if (pod.get("status") or {}).get("phase") not in _OVER:
            found.setdefault(pod["metadata"]["namespace"], set()).update(_trees_of(pod.get("spec") or {}))
    return {namespace: frozenset(trees) for namespace, trees in found.items()}


def together(one: Used, other: Used) -> Used:
    return {namespace: one.get(namespace, frozenset()) | other.get(namespace, frozenset()) for namespace in {*one, *other}}


def resource_holders(resources: Mapping[str, Any]) -> frozenset[str]:
    """Of a list of resources: as they are called where they mark trees."""
    return frozenset(f"{each['metadata']['namespace']}.{each['metadata']['name']}" for each in resources.get("items") or ())


def gone_holders(holders: Iterable[str], namespace: str, existing: frozenset[str]) -> frozenset[str]:
    """Those of `holders`, in the store of this namespace, that are no resources of it, or none any more."""
    return frozenset(each for each in holders if not each.startswith(f"{namespace}.") or each not in existing)


def _trees_of(spec: Mapping[str, Any]) -> Iterable[str]:
    for container in (container for kind in _CONTAINERS for container in spec.get(kind) or ()):
        for mount in container.get("volumeMounts") or ():
            tree = mounted_tree(mount)
            if tree is not None:
                yield tree
