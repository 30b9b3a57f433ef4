"""How a pod comes to its files: where they are kept, and whether the agent of its node brings them. Pure; `fetching` writes it down."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from inference_cache_artifacts.handover.protocol import AUDIENCE
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.resource import Resource

Delivery = Literal["HostPath", "Agent", "Claim", "Pod"]
"""The node's own folder; the pod's own, filled by the agent; a claim; the pod's own, filled by itself."""
STORE_VOLUME: Final = "inference-cache-artifacts"
TOKEN_VOLUME: Final = "inference-cache-fetch-token"  # noqa: S105  a name
_TOKEN_FOLDER: Final = "/var/run/inference-cache/agent"  # noqa: S105  a path
_TOKEN_SECONDS: Final = 3600


def delivery_of(resource: Resource, defaults: SidecarDefaults, spec: Mapping[str, Any]) -> Delivery:
    """To the pod of this spec. Until the controller has found out what the namespace allows, what every namespace allows."""
    if resource.artifact_claim is not None:
        return "Claim"
    if not defaults.artifacts_agent:
        return "Pod"
    return "HostPath" if resource.artifact_delivery == "HostPath" and _finds_services(spec) else "Agent"


def _finds_services(spec: Mapping[str, Any]) -> bool:
    """By the cluster's DNS. A pod that may not find the agent must not depend on it: it goes on alone where it does not answer."""
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    return policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not spec.get("hostNetwork"))


def by_agent(delivery: Delivery) -> bool:
    return delivery in ("HostPath", "Agent")


def is_shared(delivery: Delivery) -> bool:
    """Whether other pods' files lie where these are brought to."""
    return delivery != "Pod"


def node_folder(namespace: str, defaults: SidecarDefaults) -> dict[str, Any]:
    """The source of a volume: what the agent keeps for a namespace. Mounted read-only, always: only the agent writes there."""
    return {"hostPath": {"path": f"{defaults.artifacts_folder}/{namespace}", "type": "DirectoryOrCreate"}}


def store(delivery: Delivery, resource: Resource, defaults: SidecarDefaults) -> dict[str, Any]:
    """The source of the volume that holds the files in the end."""
    match delivery:
        case "Claim":
            return {"persistentVolumeClaim": {"claimName": resource.artifact_claim}}
        case "HostPath":
            return node_folder(resource.namespace, defaults)
        case _:
            return {"emptyDir": {}}


def token_volume() -> dict[str, Any]:
    """Good for the agent alone, and for an hour: Kubernetes puts a new one there in time."""
    token = {"audience": AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    return {"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}


def token_mount() -> dict[str, Any]:
    return {"name": TOKEN_VOLUME, "mountPath": _TOKEN_FOLDER, "readOnly": True}


def arguments(delivery: Delivery, defaults: SidecarDefaults, *, fills_store: bool) -> Iterator[str]:
    """Of `inference-cache fetch`."""
    if by_agent(delivery):
        yield f"--agent={defaults.artifacts_agent}"
        yield f"--agent-token={_TOKEN_FOLDER}/token"
        if not fills_store:
            yield "--node-only"


def is_current(pod: Mapping[str, Any], resource: Resource, defaults: SidecarDefaults) -> bool:
    """Whether a pod that fetches does it as it would now. Told by its volumes: others may have added to its containers since."""
    delivery = delivery_of(resource, defaults, pod["spec"])
    volumes = {str(each.get("name")): each for each in pod["spec"].get("volumes") or ()}
    kept = {name: source for name, source in (volumes.get(STORE_VOLUME) or {}).items() if name != "name"}
    return kept == store(delivery, resource, defaults) and (TOKEN_VOLUME in volumes) == by_agent(delivery)
