"""What a container finds on its disk besides its image, as far as the pod says. Pure."""

from collections.abc import Mapping
from typing import Any, Final

_TOKEN_VOLUME: Final = "kube-api-access-"  # noqa: S105  how Kubernetes calls the volume it adds, with a name that is new in every pod
_POD: Final = "$(POD)"


def mounts(pod: Mapping[str, Any], container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By path: what is there and which part of it. Volumes count by what they hold, not by name, and an empty one by being empty."""
    volumes = {each.get("name"): each for each in (pod.get("spec") or {}).get("volumes") or ()}
    found = [
        {
            "path": mount.get("mountPath") or "",
            "part": mount.get("subPath") or mount.get("subPathExpr") or "",
            "holds": _content(volumes.get(mount.get("name")) or {}, pod),
        }
        for mount in container.get("volumeMounts") or ()
        if not _is_token(volumes.get(mount.get("name")) or {})
    ]
    return sorted(found, key=lambda mount: str(mount["path"]))


def _content(volume: Mapping[str, Any], pod: Mapping[str, Any]) -> Any:
    if volume.get("emptyDir") is not None:
        return "nothing"
    claim = volume.get("persistentVolumeClaim")
    if isinstance(claim, Mapping):
        return {"claim": _common(str(claim.get("claimName") or ""), pod)}
    return {name: value for name, value in volume.items() if name != "name" and value is not None}


def _common(claim: str, pod: Mapping[str, Any]) -> str:
    """A StatefulSet gives every pod a claim of its own, `<template>-<pod>`, made from the same template."""
    metadata = pod.get("metadata") or {}
    name = metadata.get("name")
    owned = any(each.get("kind") == "StatefulSet" and each.get("controller") for each in metadata.get("ownerReferences") or ())
    return claim.removesuffix(str(name)) + _POD if owned and name and claim.endswith(f"-{name}") else claim


def _is_token(volume: Mapping[str, Any]) -> bool:
    return str(volume.get("name") or "").startswith(_TOKEN_VOLUME) and volume.get("projected") is not None
