"""Injection, as the audit asks about it."""

import re
from collections.abc import Mapping
from typing import Any, Final

from inference_cache_operator.injection import layer
from inference_cache_operator.injection.artifacts import artifacts_of, digests
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.injection.delivery import STORE_VOLUME
from inference_cache_operator.injection.inject import Refused, inject, injection_digest, is_injected
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.resource import Resource

_TREE: Final = re.compile("trees/([^/]+)/files")
_ANY_TOKEN: Final = "audit"  # noqa: S105  nothing is injected with it


class RealInjector:
    def __init__(self, defaults: SidecarDefaults) -> None:
        self._defaults = defaults

    def is_injected(self, pod: Mapping[str, Any]) -> bool:
        return is_injected(pod)

    def digest(self, resource: Resource) -> str:
        return injection_digest(resource, self._defaults)

    def refusal(self, pod: Mapping[str, Any], resource: Resource) -> str | None:
        outcome = inject(pod, resource, self._defaults, _ANY_TOKEN)
        return outcome.message if isinstance(outcome, Refused) else None

    def has_other_files(self, pod: Mapping[str, Any], resource: Resource) -> bool:
        if not layer.is_there(pod):
            return False
        try:
            wanted = artifacts_of(resource, resource.version_of_new_pods)
        except Refusal:
            return False
        return _files(pod) != set(digests(wanted))


def _files(pod: Mapping[str, Any]) -> set[str]:
    """As `artifacts.digests` names them; told by what is mounted."""
    containers = (pod.get("spec") or {}).get("containers") or ()
    mounts = [each for container in containers for each in container.get("volumeMounts") or () if each.get("name") == STORE_VOLUME]
    found = [(each.get("mountPath"), _TREE.fullmatch(str(each.get("subPath") or ""))) for each in mounts]
    return {f"{path}={tree[1]}" for path, tree in found if tree is not None}
