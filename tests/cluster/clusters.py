"""Which cluster the tests of whole nodes run on: the one that KUBECONFIG names, else a node of their own.

Both have `kubeconfig`, `kubectl`, `load` and `forward`.
"""

import ipaddress
import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

from tests.cluster import binaries
from tests.cluster.errors import ClusterError, CommandFailed
from tests.cluster.kubeconfig import Kubectl
from tests.cluster.servers import Server

LOAD_COMMAND: Final = "INFERENCE_CACHE_LOAD"
"""The environment variable with the command that brings an image archive onto the cluster's nodes; the archive is added to it."""
LABEL: Final = "inferencecache.io/test-cluster=true"
LOAD_SECONDS: Final = 600.0
FORWARD_SECONDS: Final = 60.0


class NotForTests(ClusterError):
    """KUBECONFIG names a cluster that may be in use."""


class ForeignCluster:
    """A cluster that others started, such as one of kind; closing ends what it forwards."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        """`folder` takes the logs of what is forwarded."""
        self.kubeconfig: Final = kubeconfig
        self.kubectl: Final = Kubectl(kubeconfig)
        self._folder = folder
        self._forwarded: dict[tuple[str, str, int], str] = {}
        self._running = ExitStack()

    def __enter__(self) -> "ForeignCluster":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._running.close()

    def load(self, archive: Path) -> None:
        """By the command in INFERENCE_CACHE_LOAD, or kind's own for a cluster of kind. Raises CommandFailed."""
        command = [*load_command(self.kubectl("config", "current-context").strip(), os.environ), str(archive)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_SECONDS, check=False)
        if done.returncode != 0:
            raise CommandFailed(f"{' '.join(command)}: {done.stderr.strip()}")

    def forward(self, namespace: str, target: str, port: int) -> str:
        """The URL of `service/NAME` or `pod/NAME` at its own `port`, through kubectl; bound to one pod for as long as that lives."""
        asked = (namespace, target, port)
        if asked not in self._forwarded:
            self._forwarded[asked] = self._begin(namespace, target, port)
        return self._forwarded[asked]

    def _begin(self, namespace: str, target: str, port: int) -> str:
        log = self._folder / f"forward-{len(self._forwarded)}"
        arguments: list[str | Path] = ["--kubeconfig", self.kubeconfig, "port-forward", "-n", namespace, target, f":{port}"]
        server = Server("kubectl port-forward", [binaries.component("kubectl"), *arguments], log)
        self._running.callback(server.kill)
        server.start()
        server.wait(lambda: _local_port(server) is not None, FORWARD_SECONDS)
        return f"http://127.0.0.1:{_local_port(server)}"


def named_cluster(folder: Path, environment: Mapping[str, str] = os.environ) -> ForeignCluster | None:
    """The one in KUBECONFIG, if that is set. Raises NotForTests where nothing says that it is for tests.

    Many people have the variable set for their daily work: the tests would install themselves into that cluster.
    """
    named = environment.get("KUBECONFIG")
    if not named:
        return None
    # A copy: the variable may list several files, and people change their current context.
    copied = folder / "kubeconfig"
    copied.touch(mode=0o600)
    copied.write_text(Kubectl(Path(named))("config", "view", "--raw", "--flatten", "--minify"))
    cluster = ForeignCluster(copied, folder)
    if not (_is_local(cluster.kubectl) or cluster.kubectl("get", "nodes", "-l", LABEL, "-o", "name")):
        raise NotForTests(
            f"KUBECONFIG names a cluster that is neither on this machine nor labelled for tests: "
            f"unset the variable, or allow it with `kubectl label nodes --all {LABEL}`"
        )
    return cluster


def load_command(context: str, environment: Mapping[str, str]) -> list[str]:
    """How image archives are brought to the cluster of that context. Raises ClusterError where nobody has said it."""
    if told := environment.get(LOAD_COMMAND):
        return shlex.split(told)
    kind, _, name = context.partition("-")
    if kind == "kind" and name:
        return ["kind", "load", "image-archive", "--name", name]
    raise ClusterError(f"set {LOAD_COMMAND} to the command that loads an image archive into the cluster of context {context!r}")


def _is_local(kubectl: Kubectl) -> bool:
    """The API server is on this machine."""
    shown: dict[str, Any] = json.loads(kubectl("config", "view", "--minify", "-o", "json"))
    host = urlsplit(shown["clusters"][0]["cluster"]["server"]).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _local_port(server: Server) -> int | None:
    found = re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", server.tail())
    return int(found[1]) if found else None
