"""cert-manager's own controllers on a control plane, and what somebody asks of them with kubectl."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.servers import Server, started

GROUP: Final = "cert-manager.io"
SECONDS: Final = 300.0
_LONG_AGO: Final = "2020-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class CertManager:
    """In one namespace."""

    plane: ControlPlane
    server: Server
    namespace: str

    def not_ready(self) -> list[str]:
        """Of its Issuers and Certificates."""
        listed = json.loads(self.plane.kubectl("get", f"issuers.{GROUP},certificates.{GROUP}", "-n", self.namespace, "-o", "json"))
        return [f"{each['kind']} {each['metadata']['name']}" for each in listed["items"] if not _is(each, "Ready")]

    def wait(self, ready: Callable[[], bool]) -> None:
        """Raises NotReady, also where cert-manager has ended."""
        self.server.wait(ready, SECONDS)

    def secret(self, name: str) -> dict[str, bytes]:
        """Its data; empty where it is not there, or not in full."""
        found = self.plane.api.get(f"/api/v1/namespaces/{self.namespace}/secrets/{name}") or {}
        data = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        return data if data.get("tls.crt") and data.get("tls.key") else {}

    def renew(self, certificate: str) -> None:
        """As `cmctl renew` does. Returns once there is another, and the next may be asked for."""
        before, path = self.secret(certificate), f"/apis/{GROUP}/v1/namespaces/{self.namespace}/certificates/{certificate}"
        issuing = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "", "lastTransitionTime": _LONG_AGO}
        change = {"status": {"conditions": [*self._conditions(path)[0], issuing]}}
        self.plane.api.request("PATCH", f"{path}/status", change, "application/merge-patch+json")
        self.wait(lambda: self.secret(certificate) not in ({}, before) and not self._conditions(path)[1])

    def _conditions(self, path: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Of a Certificate: others, and that it is being issued."""
        found = self.plane.api.request("GET", path)["status"]["conditions"]
        issuing = [each for each in found if each["type"] == "Issuing"]
        return [each for each in found if each not in issuing], [each for each in issuing if each["status"] == "True"]

    def delete_secret(self, name: str) -> None:
        """Returns once there is another."""
        before = self.secret(name)
        self.plane.api.request("DELETE", f"/api/v1/namespaces/{self.namespace}/secrets/{name}")
        self.wait(lambda: self.secret(name) not in ({}, before))


@contextmanager
def running_cert_manager(plane: ControlPlane, namespace: str, log: Path) -> Iterator[CertManager]:
    """With its definitions; they stay. Its own webhook, which only checks, is not there."""
    folder = binaries.cert_manager()
    plane.kubectl("apply", "--server-side", "-f", folder / "crds")
    plane.kubectl("wait", "--for=condition=Established", f"--timeout={SECONDS:g}s", "-f", folder / "crds", seconds=SECONDS + 30)
    server = Server("cert-manager", [folder / "cert-manager", plane.kubeconfig], log)
    with started(server):
        yield CertManager(plane, server, namespace)


def _is(body: dict[str, Any], kind: str) -> bool:
    """At its generation."""
    found = [each for each in body.get("status", {}).get("conditions", []) if each["type"] == kind]
    return any(each["status"] == "True" and each.get("observedGeneration") == body["metadata"]["generation"] for each in found)
