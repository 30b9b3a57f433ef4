"""The command lines of a control plane's processes."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.certificates import Authority, Pair

Command = list[str | Path]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a control plane runs, and the network its Services are in."""

    address: str = "127.0.0.1"
    services: str = "10.96.0.0/16"
    inside: Sequence[str | Path] = ()
    """Stands before each command, to run it in a node's network."""
    has_node: bool = False
    """A kubelet reports to it, and pods call its API server."""

    def names(self) -> list[str]:
        """The addresses under which the API server is called; the second is that of the Service `kubernetes`."""
        first_service = str(ipaddress.ip_network(self.services)[1])
        return [*dict.fromkeys(["127.0.0.1", first_service, self.address])]


def etcd(folder: Path, client_port: int, peer_port: int) -> Command:
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return [
        *(binaries.program("etcd"), "--data-dir", folder / "etcd", "--unsafe-no-fsync", "--log-level", "warn"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
    ]


def audit_log(folder: Path) -> Path:
    return folder / "audit.log"


def api_server(folder: Path, pki: Authority, place: Place, etcd_port: int, port: int, server: Pair, accounts: Pair) -> Command:
    authority = pki.files.certificate
    kubelet = pki.sign("kubelet-client", organization="system:masters")
    front = pki.sign("front-proxy-client")
    flags = {
        "etcd-servers": f"http://127.0.0.1:{etcd_port}",
        "bind-address": place.address,
        "advertise-address": place.address,
        "secure-port": port,
        "tls-cert-file": server.certificate,
        "tls-private-key-file": server.key,
        "client-ca-file": authority,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": accounts.certificate,
        "service-account-signing-key-file": accounts.key,
        "service-cluster-ip-range": place.services,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "kubelet-client-certificate": kubelet.certificate,
        "kubelet-client-key": kubelet.key,
        "kubelet-certificate-authority": authority,
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": authority,
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": front.certificate,
        "proxy-client-key-file": front.key,
        # Endpoints may not be loopback addresses.
        "endpoint-reconciler-type": "lease" if place.has_node else "none",
        "audit-policy-file": folder / "audit-policy.yaml",
        "audit-log-path": audit_log(folder),
    }
    return [binaries.component("kube-apiserver"), *(f"--{name}={value}" for name, value in flags.items())]


def controller_manager(pki: Authority, place: Place, accounts: Pair, kubeconfig: Path) -> Command:
    flags = {
        **_kubeconfigs(kubeconfig),
        "service-account-private-key-file": accounts.key,
        "root-ca-file": pki.files.certificate,
        "cluster-signing-cert-file": pki.files.certificate,
        "cluster-signing-key-file": pki.files.key,
        "use-service-account-credentials": "true",
        "kube-api-qps": 500,
        "kube-api-burst": 1000,
        # A node that exists by name only sends no heartbeats, and its pods shall stay Ready.
        "controllers": "*" if place.has_node else "*,-node-lifecycle-controller,-taint-eviction-controller",
        # A node whose kubelet or API server was held up for some seconds must not lose its pods' endpoints.
        "node-monitor-grace-period": "60s",
        "node-monitor-period": "1s",
    }
    return [binaries.component("kube-controller-manager"), *(f"--{name}={value}" for name, value in flags.items())]


def scheduler(kubeconfig: Path) -> Command:
    flags = {**_kubeconfigs(kubeconfig), "kube-api-qps": 200, "kube-api-burst": 400}
    return [binaries.component("kube-scheduler"), *(f"--{name}={value}" for name, value in flags.items())]


def _kubeconfigs(kubeconfig: Path) -> dict[str, str | Path | int]:
    """What every component takes that is a client of the API server; it serves nothing itself."""
    return {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "leader-elect": "false",
        "secure-port": 0,
    }
