"""Private namespaces for a node: net, mount, pid, uts and ipc. Killing the first process in them ends everything inside."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster import binaries, undertaker
from tests.cluster.errors import MissingProgram
from tests.cluster.network import Network, connect
from tests.cluster.servers import Server

HERE: Final = Path(__file__).parent
START_SECONDS: Final = 60.0
NAMESPACES: Final = ("--pid", "--net", "--uts", "--ipc", "--mount", "--propagation", "slave")
"""What this machine unmounts is not held by the node; what the node mounts is not seen here."""
CONTROLLERS: Final = ("cpu", "cpuset", "memory", "pids", "hugetlb")
"""Those that kubelet looks for."""
BRIDGE_FILTER: Final = Path("/proc/sys/net/bridge")
"""There with the kernel's br_netfilter, without which the node's rules do not see what pods on its bridge send each other."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Where a node's processes run, and its state on disk."""

    folder: Path
    pid: int
    """Of the first process inside, as this machine numbers it."""
    network: Network
    cgroup: str
    """All the node's cgroups are below it, in each hierarchy."""

    @property
    def pod_logs(self) -> Path:
        """What the node sees as /var/log."""
        return self.folder / "var-log"

    @property
    def inside(self) -> list[str | Path]:
        """Stands before a command that runs in the node."""
        return [binaries.program("nsenter"), "-t", str(self.pid), "-m", "-p", "-n", "-u", "-i", "--"]

    @property
    def in_network(self) -> list[str | Path]:
        """Stands before a command that only uses the node's network; its process is the command's own."""
        return [binaries.program("nsenter"), f"--net=/proc/{self.pid}/ns/net", "--"]

    def server(self, name: str, command: Sequence[str | Path]) -> Server:
        return Server(name, [*self.inside, *command], self.folder / "log" / name)


@contextmanager
def running_sandbox(folder: Path) -> Iterator[Sandbox]:
    """New namespaces, whose files are under `folder`. In the end, or when this process dies, the folder and all cgroups are removed.

    Raises ClusterError; MissingProgram where this user may not make namespaces.
    """
    if os.geteuid() != 0:
        raise MissingProgram("a whole node needs root, for its namespaces and cgroups")
    _filter_bridges()
    for name in ("log", "var-log"):
        (folder / name).mkdir(parents=True)
    cgroup = f"inference-cache-{secrets.token_hex(4)}"
    with _undertaken(folder, cgroup):
        _make_cgroups(cgroup)
        pause = binaries.kubernetes() / "pause"
        unshare: list[str | Path] = [*(binaries.program("unshare"), *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "--")]
        first = Server("sandbox", [*unshare, sys.executable, HERE / "sandbox_entry.py", folder, pause], folder / "log" / "sandbox")
        try:
            first.start()
            first.wait((folder / "entered").exists, START_SECONDS)
            pid = _only_child(first.pid)
            yield Sandbox(folder, pid, connect(pid), cgroup)
        finally:
            first.kill()


@contextmanager
def _undertaken(folder: Path, cgroup: str) -> Iterator[None]:
    """Ends once all is cleared up. Input of the process that clears up is held by this one alone."""
    command: list[str | Path] = [sys.executable, HERE / "undertaker.py", folder, cgroup]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield


def _filter_bridges() -> None:
    if not BRIDGE_FILTER.exists():
        with suppress(OSError):
            subprocess.run(["modprobe", "br_netfilter"], check=False, capture_output=True, timeout=START_SECONDS)
    if not BRIDGE_FILTER.exists():
        raise MissingProgram("the kernel module br_netfilter is missing, without which pods do not reach Services: load it by modprobe")


def _make_cgroups(name: str) -> None:
    for hierarchy in undertaker.hierarchies():
        # Version 2: what a cgroup's children may use must be said above them; often it is already.
        for controller in CONTROLLERS:
            with suppress(OSError):
                (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
        with suppress(OSError):
            (hierarchy / name).mkdir()


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
