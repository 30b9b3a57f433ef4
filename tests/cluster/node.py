"""A whole Kubernetes node: a control plane, a scheduler, kubelet, containerd, kube-proxy and DNS in private namespaces of this machine.

Needs root. Its API server, Services and pods are reached from this machine by their own addresses.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from tests.cluster import binaries, node_configuration, servers
from tests.cluster import control_plane_commands as commands
from tests.cluster.api import Api
from tests.cluster.control_plane import ControlPlane, running_control_plane, written_kubeconfig
from tests.cluster.control_plane_commands import Place
from tests.cluster.errors import CommandFailed, NotReady
from tests.cluster.image import Image, write_image
from tests.cluster.kubeconfig import Kubectl
from tests.cluster.node_configuration import NAME, PAUSE_IMAGE, SOCKET
from tests.cluster.sandbox import Sandbox, running_sandbox
from tests.cluster.servers import Server, started

PROJECT: Final = Path(__file__).resolve().parents[2]
START_SECONDS: Final = 180.0
COMMAND_SECONDS: Final = 600.0
CTR: Final = ("ctr", "--address", SOCKET, "--namespace", "k8s.io")


@dataclass(frozen=True, slots=True)
class Node:
    """A running node whose state is Ready; `plane` has the processes that may be paused and killed."""

    plane: ControlPlane
    sandbox: Sandbox

    @property
    def kubeconfig(self) -> Path:
        return self.plane.kubeconfig

    @property
    def kubectl(self) -> Kubectl:
        return self.plane.kubectl

    @property
    def api(self) -> Api:
        return self.plane.api

    def sh(self, *command: str | Path, stdin: str | None = None, seconds: float = COMMAND_SECONDS) -> str:
        """Run a command in the node's namespaces; what it wrote to stdout. Raises CommandFailed."""
        with tempfile.TemporaryFile("w+") as told:
            told.write(stdin or "")
            told.seek(0)
            return self._run(command, told, seconds)

    def environment(self) -> dict[str, str]:
        """For a command in the node: kubectl is on its PATH."""
        found = servers.environment()
        kubectl = {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.plane.folder / "kubectl-cache")}
        return {**found, **kubectl, "PATH": f"{binaries.kubernetes()}:{found['PATH']}"}

    def load(self, archive: Path) -> None:
        """Import an OCI or Docker image archive; pods use it with `imagePullPolicy: Never` or `IfNotPresent`."""
        # Not by its name: the node does not see all of this machine's folders.
        with archive.open("rb") as content:
            self._run([*CTR, "images", "import", "-"], content, COMMAND_SECONDS)

    def save_logs(self, folder: Path) -> None:
        """What its processes and containers have said: the node's own files go with it."""
        for part, logs in {"plane": self.plane.folder / "log", "node": self.sandbox.folder / "log", "pods": self.sandbox.pod_logs}.items():
            shutil.copytree(logs, folder / part, symlinks=True, ignore_dangling_symlinks=True, dirs_exist_ok=True)

    def forward(self, namespace: str, target: str, port: int) -> str:
        """The URL of `service/NAME` or `pod/NAME` at its own `port`, for clients on this machine."""
        kind, _, name = target.partition("/")
        path = {"service": ".spec.clusterIP", "pod": ".status.podIP"}[kind]
        address = self.kubectl("get", kind, name, "-n", namespace, "-o", f"jsonpath={{{path}}}")
        if address in {"", "None"}:
            raise NotReady(f"{target} in namespace {namespace} has no address")
        return f"http://{address}:{port}"

    def _run(self, command: Sequence[str | Path], stdin: IO[Any], seconds: float) -> str:
        done = subprocess.run(
            [*self.sandbox.inside, *command], stdin=stdin, env=self.environment(),
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise CommandFailed(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
        return done.stdout


@contextmanager
def running_node(folder: Path, api_server_flags: Sequence[str] = ()) -> Iterator[Node]:
    """A new one, whose files are under `folder`, which is removed in the end. Raises ClusterError."""
    with running_sandbox(folder) as sandbox:
        network = sandbox.network
        place = Place(network.node, network.services, sandbox.in_network, has_node=True)
        runtime = sandbox.server("containerd", [binaries.program("containerd"), "-c", node_configuration.containerd_file(sandbox)])
        with started(runtime), running_control_plane(folder / "plane", place, api_server_flags) as plane:
            node = Node(plane, sandbox)
            _load_pause_image(node, runtime)
            kubelet, *others = _servers(node)
            with started(kubelet, *others):
                kubelet.wait(lambda: is_ready(node.api), START_SECONDS)
                yield node


def _servers(node: Node) -> tuple[Server, ...]:
    """What a node needs beside containerd and the control plane; kubelet is the first."""
    sandbox, pki, folder, address = node.sandbox, node.plane.pki, node.plane.folder, node.sandbox.network.node
    authority, url = pki.files.certificate, node.plane.url
    own = pki.sign(f"system:node:{NAME}", organization="system:nodes", addresses=["127.0.0.1", address], hosts=[NAME])
    kubelet_config = written_kubeconfig(folder, pki, url, "kubelet", own)
    proxy_config = written_kubeconfig(folder, pki, url, "proxy", pki.sign("system:kube-proxy"))
    scheduler_config = written_kubeconfig(folder, pki, url, "scheduler", pki.sign("system:kube-scheduler"))
    dns = pki.sign("dns", organization="system:masters")
    kubelet: commands.Command = [
        *(binaries.component("kubelet"), "--config", node_configuration.kubelet_file(sandbox, authority, own)),
        *("--kubeconfig", kubelet_config, "--root-dir", sandbox.folder / "kubelet", "--hostname-override", NAME, "--node-ip", address),
    ]
    proxy: commands.Command = [binaries.component("kube-proxy"), "--config", node_configuration.proxy_file(sandbox, proxy_config)]
    python: commands.Command = ["env", f"PYTHONPATH={PROJECT}", sys.executable]
    resolver = [*python, "-m", "tests.cluster.dns", address, url, authority, dns.certificate, dns.key]
    return (
        sandbox.server("kubelet", kubelet),
        sandbox.server("kube-proxy", proxy),
        sandbox.server("kube-scheduler", commands.scheduler(scheduler_config)),
        sandbox.server("dns", resolver),
    )


def _load_pause_image(node: Node, runtime: Server) -> None:
    """What holds a pod's namespaces."""
    image = Image(PAUSE_IMAGE, files={"/pause": binaries.kubernetes() / "pause"}, entrypoint=["/pause"])
    archive = write_image(image, node.sandbox.folder / "pause.tar")
    runtime.wait(lambda: _answers(node), START_SECONDS)
    node.load(archive)


def _answers(node: Node) -> bool:
    try:
        node.sh(*CTR, "version")
    except CommandFailed:
        return False
    return True


def is_ready(api: Api) -> bool:
    """All its nodes are Ready, and there is one."""
    nodes = api.request("GET", "/api/v1/nodes")["items"]
    return bool(nodes) and all(
        any(condition["type"] == "Ready" and condition["status"] == "True" for condition in node["status"].get("conditions", []))
        for node in nodes
    )
