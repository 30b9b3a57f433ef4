"""The two objects that certificates live in, through the API server: one Secret, one webhook configuration. Get and patch, no more."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from inference_cache_contract.pod import GROUP
from inference_cache_operator.cluster.api import Cluster
from inference_cache_operator.webhook.configuration import FIELD_MANAGER

ROTATE_ANNOTATION: Final = f"{GROUP}/rotate"
"""Set by a person on the Secret: every new value makes a new CA once."""
ROTATED_ANNOTATION: Final = f"{GROUP}/rotated"
"""The value that was last done."""


@dataclass(frozen=True, slots=True)
class SecretRead:
    data: Mapping[str, bytes] = field(repr=False)
    resource_version: str
    rotate: str = ""
    rotated: str = ""

    @property
    def rotation_asked(self) -> bool:
        return self.rotate not in ("", self.rotated)


class Objects(Protocol):
    """Every call raises ClusterError; `apply_secret` raises Conflicting where another was faster."""

    async def secret(self) -> SecretRead: ...

    async def apply_secret(self, data: Mapping[str, bytes], read: SecretRead, rotated: str) -> None: ...

    async def configuration(self) -> Mapping[str, Any]: ...

    async def apply_configuration(self, body: Mapping[str, Any]) -> None: ...

    async def merge_configuration(self, body: Mapping[str, Any]) -> None: ...


class ClusterObjects:
    def __init__(self, cluster: Cluster, namespace: str, secret: str, configuration: str) -> None:
        self._cluster = cluster
        self._name = secret
        self._secret = f"/api/v1/namespaces/{namespace}/secrets/{secret}"
        self._configuration = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{configuration}"

    async def secret(self) -> SecretRead:
        return read_secret(await self._cluster.get(self._secret))

    async def apply_secret(self, data: Mapping[str, bytes], read: SecretRead, rotated: str) -> None:
        """Refused if the Secret is not the one that was read: two leaders must not mix their keys."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._name, "resourceVersion": read.resource_version, "annotations": {ROTATED_ANNOTATION: rotated}},
            "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
        }
        await self._cluster.apply(self._secret, body, FIELD_MANAGER, force=True)

    async def configuration(self) -> Mapping[str, Any]:
        return await self._cluster.get(self._configuration)

    async def apply_configuration(self, body: Mapping[str, Any]) -> None:
        await self._cluster.apply(self._configuration, body, FIELD_MANAGER, force=True)

    async def merge_configuration(self, body: Mapping[str, Any]) -> None:
        await self._cluster.merge(self._configuration, body)


def read_secret(body: Mapping[str, Any]) -> SecretRead:
    """What is not base64 counts as missing."""
    annotations = body["metadata"].get("annotations") or {}
    return SecretRead(
        data={name: value for name, text in (body.get("data") or {}).items() if (value := _decoded(text))},
        resource_version=body["metadata"]["resourceVersion"],
        rotate=annotations.get(ROTATE_ANNOTATION, ""),
        rotated=annotations.get(ROTATED_ANNOTATION, ""),
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""
