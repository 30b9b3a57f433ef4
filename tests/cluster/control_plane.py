"""A Kubernetes control plane of plain processes: etcd, kube-apiserver and kube-controller-manager on free ports, no root needed.

No node runs its pods; `played_kubelet` says of them what a kubelet would.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster import control_plane_commands as commands
from tests.cluster import kubeconfig
from tests.cluster.api import Api, api
from tests.cluster.certificates import Authority, Pair, authority, signing_key
from tests.cluster.control_plane_commands import Place
from tests.cluster.kubeconfig import Kubectl
from tests.cluster.servers import Server, until

from inference_cache_toolkit.processes import free_port

START_SECONDS: Final = 120.0
AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # The controllers of Kubernetes itself.
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


@dataclass(slots=True)
class ControlPlane:
    """A running control plane; `etcd`, `api_server` and `controllers` may be paused, killed and started again."""

    folder: Path
    place: Place
    pki: Authority
    api: Api
    kubeconfig: Path
    kubectl: Kubectl
    etcd: Server
    api_server: Server
    controllers: Server

    @property
    def url(self) -> str:
        return self.api.server

    def kubeconfig_for(self, service_account: str) -> Path:
        """A kubeconfig with a new token of `namespace/name`. Raises CommandFailed where there is no such account."""
        namespace, _, name = service_account.partition("/")
        file = self.folder / f"{namespace}.{name}.kubeconfig"
        return kubeconfig.write(file, self.url, self.pki.files.certificate, {"token": self.kubectl.token(namespace, name)})

    def audit(self) -> Iterator[dict[str, Any]]:
        """What service accounts other than Kubernetes' own have asked so far: audit.k8s.io/v1 Events, without bodies."""
        log = commands.audit_log(self.folder)
        # The last line may be half written.
        for line in log.read_text(errors="replace").splitlines(keepends=True) if log.exists() else ():
            if line.endswith("\n"):
                yield json.loads(line)

    def wait_ready(self) -> None:
        """After the API server was started again."""
        self.api_server.wait(self.api.is_ready, START_SECONDS)

    def stop(self) -> None:
        """All of it, at once."""
        for server in (self.controllers, self.api_server, self.etcd):
            server.kill()


@contextmanager
def running_control_plane(folder: Path, place: Place | None = None, api_server_flags: Sequence[str] = ()) -> Iterator[ControlPlane]:
    """A new one, whose files are under `folder`, ready with the namespace `default`. Raises ClusterError."""
    plane = _prepared(folder, place or Place(), api_server_flags)
    try:
        plane.etcd.start()
        plane.api_server.start()
        plane.wait_ready()
        plane.controllers.start()
        until(lambda: _has_default_account(plane.api, "default"), "the controllers", START_SECONDS)
        yield plane
    finally:
        plane.stop()
        # It reserves 128 MB for what it writes down.
        shutil.rmtree(folder / "etcd", ignore_errors=True)


@contextmanager
def fresh_namespace(api: Api, name: str) -> Iterator[str]:
    """A namespace in which pods can be created; its deletion is ordered in the end and not waited for."""
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    until(lambda: _has_default_account(api, name), f"the service account of namespace {name}", START_SECONDS)
    try:
        yield name
    finally:
        api.request("DELETE", f"/api/v1/namespaces/{name}")


def _has_default_account(api: Api, namespace: str) -> bool:
    return api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default") is not None


def _prepared(folder: Path, place: Place, api_server_flags: Sequence[str]) -> ControlPlane:
    folder.mkdir(parents=True, exist_ok=True)
    pki = authority(folder / "pki")
    client_port, peer_port, port = (free_port() for _ in range(3))
    url = f"https://{place.address}:{port}"
    (folder / "audit-policy.yaml").write_text(json.dumps(AUDIT_POLICY))
    server = pki.sign("kube-apiserver", addresses=place.names(), hosts=["localhost", "kubernetes.default.svc"])
    admin, controllers = pki.sign("admin", organization="system:masters"), pki.sign("system:kube-controller-manager")
    accounts = signing_key(pki.folder, "service-accounts")
    admin_config = written_kubeconfig(folder, pki, url, "admin", admin)
    controllers_config = written_kubeconfig(folder, pki, url, "controllers", controllers)
    etcd = commands.etcd(folder, client_port, peer_port)
    api_server = commands.api_server(folder, pki, place, client_port, port, server, accounts)
    manager = commands.controller_manager(pki, place, accounts, controllers_config)
    log = folder / "log"
    log.mkdir()
    return ControlPlane(
        folder=folder,
        place=place,
        pki=pki,
        api=api(url, pki.files.certificate, admin),
        kubeconfig=admin_config,
        kubectl=Kubectl(admin_config),
        etcd=Server("etcd", [*place.inside, *etcd], log / "etcd"),
        api_server=Server("kube-apiserver", [*place.inside, *api_server, *api_server_flags], log / "kube-apiserver"),
        controllers=Server("kube-controller-manager", [*place.inside, *manager], log / "kube-controller-manager"),
    )


def written_kubeconfig(folder: Path, pki: Authority, url: str, name: str, client: Pair) -> Path:
    """A component's, `NAME.kubeconfig` in `folder`."""
    return kubeconfig.write(folder / f"{name}.kubeconfig", url, pki.files.certificate, kubeconfig.by_certificate(client))
