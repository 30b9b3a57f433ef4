"""Who owns what the operator makes for itself: its own Deployment, so that an uninstall takes it along."""

from collections.abc import Mapping
from typing import Any

from inference_cache_operator import errors
from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster


async def owners(cluster: Cluster, namespace: str, pod_name: str) -> tuple[Mapping[str, Any], ...]:
    """The ownerReferences of the Deployment behind this pod; none where the operator runs otherwise, or may not look."""
    try:
        replica_set = _controller(await cluster.get(paths.pod(namespace, pod_name)))
        if replica_set is None or replica_set["kind"] != "ReplicaSet":
            return ()
        deployment = _controller(await cluster.get(paths.workload("ReplicaSet", namespace, replica_set["name"])))
    except errors.ClusterError:
        return ()
    return () if deployment is None else ({**deployment, "controller": False, "blockOwnerDeletion": False},)


def _controller(body: Mapping[str, Any]) -> dict[str, Any] | None:
    references = body["metadata"].get("ownerReferences") or ()
    return next((dict(each) for each in references if each.get("controller")), None)
