"""The processes of a pod's containers, found and signalled on the node itself: what a test breaks, no container needs to allow."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.cluster.node import CTR, Node


@dataclass(frozen=True, slots=True)
class Process:
    """As the node numbers it."""

    node: Node
    pid: int
    command: str

    def signal(self, number: signal.Signals) -> None:
        self.node.sh("kill", f"-{number.value}", str(self.pid))


def container_status(pod: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Of a container, an init container too."""
    status = pod["status"]
    return next(each for each in [*status.get("initContainerStatuses", ()), *status["containerStatuses"]] if each["name"] == name)


def processes(node: Node, pod: Mapping[str, Any], name: str) -> list[Process]:
    """All of one container, the oldest first."""
    container = container_status(pod, name)["containerID"].removeprefix("containerd://")
    told = node.sh(*CTR, "tasks", "ps", container).splitlines()[1:]
    pids = sorted(int(line.split()[0]) for line in told)
    commands = (node.sh("sh", "-c", f"tr '\\0' ' ' < /proc/{pid}/cmdline || true") for pid in pids)
    return [Process(node, pid, command) for pid, command in zip(pids, commands, strict=True)]


def process(node: Node, pod: Mapping[str, Any], name: str, wanted: Callable[[str], bool]) -> Process:
    """The oldest one whose command line is `wanted`."""
    found = processes(node, pod, name)
    return next(each for each in found if wanted(each.command))
