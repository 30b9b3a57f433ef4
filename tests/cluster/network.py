"""The networks of one test node: a /16 of its own, reached from this machine through a pair of virtual devices.

Only addresses inside that /16 are used, and nothing is forwarded to the outside.
"""

import ipaddress
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tests.cluster import binaries
from tests.cluster.errors import CommandFailed, NotReady

NUMBERS: Final = range(101, 250)
"""The second byte of the node's networks: 10.NUMBER.0.0/16."""
DEVICE: Final = "ic-node-"


@dataclass(frozen=True, slots=True)
class Network:
    number: int

    @property
    def whole(self) -> str:
        return f"10.{self.number}.0.0/16"

    @property
    def machine(self) -> str:
        """This machine's address, as the node and its pods see it."""
        return f"10.{self.number}.0.254"

    @property
    def node(self) -> str:
        return f"10.{self.number}.0.1"

    @property
    def pods(self) -> str:
        return f"10.{self.number}.64.0/22"

    @property
    def services(self) -> str:
        return f"10.{self.number}.128.0/17"

    @property
    def device(self) -> str:
        """This machine's end; the kernel removes it with the node's end."""
        return f"{DEVICE}{self.number}"


def connect(pid: int) -> Network:
    """Join this machine with the network namespace of process `pid`, by a free network. Raises NotReady where none is free."""
    for number in free_numbers(_routes()):
        network = Network(number)
        try:
            _ip("link", "add", network.device, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        except CommandFailed as error:
            if "File exists" in str(error):
                continue
            raise
        _ip("address", "add", f"{network.machine}/24", "dev", network.device)
        _ip("link", "set", network.device, "up")
        _configure(network, pid)
        _ip("route", "add", network.whole, "via", network.node)
        return network
    raise NotReady("no network 10.x.0.0/16 is free for the node")


def free_numbers(routes: Iterable[str]) -> Iterable[int]:
    """Of the networks that overlap with none of `routes`."""
    taken = [ipaddress.ip_network(route) for route in routes]
    return (number for number in NUMBERS if not any(ipaddress.ip_network(f"10.{number}.0.0/16").overlaps(route) for route in taken))


def _configure(network: Network, pid: int) -> None:
    """The node's side. All that is not this machine's answers at once that it is unreachable, as no registry is."""
    inside = (binaries.program("nsenter"), f"--net=/proc/{pid}/ns/net", "--")
    for command in (
        ("address", "add", f"{network.node}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        # What is sent to a Service needs a route before kube-proxy gives it another address.
        ("route", "add", network.services, "dev", "eth0"),
        ("route", "add", "unreachable", "default", "metric", "1000"),
    ):
        _run(*inside, binaries.program("ip"), *command)


def _routes() -> list[str]:
    shown = json.loads(_ip("-json", "-4", "route", "show", "table", "all"))
    return [route["dst"] for route in shown if route["dst"] != "default" and route.get("type") not in {"broadcast", "multicast"}]


def _ip(*arguments: str) -> str:
    return _run(binaries.program("ip"), *arguments)


def _run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout
