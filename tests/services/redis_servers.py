"""Redis as a Cluster, each node a process of its own, and what servers of several processes share. `redis_sentinel` has Sentinel."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from inference_cache_toolkit.processes import StartError, free_port
from inference_cache_toolkit.redis_server import KEEPS_NOTHING, RedisServer, prepared

READY_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.05
SLOTS: Final = 16384
BUS: Final = 10_000
"""A node's bus listens that far above its port."""


@dataclass(frozen=True, slots=True)
class ClusterServers:
    """Masters without replicas: any may be paused, killed and started again; while one is down none serves."""

    nodes: tuple[RedisServer, ...]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def node_of(self, key: str) -> RedisServer:
        """As the slots were dealt out at the start."""
        with self.nodes[0].client() as client:
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", key))
        return self.nodes[slot * len(self.nodes) // SLOTS]

    def whole(self) -> None:
        """Bring back what a test left paused or ended."""
        for node in self.nodes:
            whole(node)
        until(lambda: all(_agrees(node, len(self.nodes)) for node in self.nodes), "every node to find the cluster well")

    def empty(self) -> None:
        """Delete every key."""
        for node in self.nodes:
            node.empty()


@contextmanager
def cluster_servers(folder: Path, masters: int = 3, config: Sequence[str] = ()) -> Iterator[ClusterServers]:
    """A cluster that every node finds well. `config`: lines of redis.conf. Raises StartError."""
    lines = (*KEEPS_NOTHING, "cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout 10000", *config)
    nodes = tuple(prepared(folder / f"node-{number}", free_port(beside=(BUS,)), lines) for number in range(masters))
    try:
        for node in nodes:
            node.start()
        for number, node in enumerate(nodes):
            _deal_out(node, number, nodes)
        for node in nodes:
            _introduce(node, nodes)
        cluster = ClusterServers(nodes)
        cluster.whole()
        yield cluster
    finally:
        stop_all(nodes)


def _deal_out(node: RedisServer, number: int, nodes: Sequence[RedisServer]) -> None:
    """Give the node its epoch and its share of the slots."""
    # The first slot of a share is the first that `node_of` gives to this node.
    first, beyond = (-(-SLOTS * share // len(nodes)) for share in (number, number + 1))
    with node.client() as client:
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, beyond - 1)


def _introduce(node: RedisServer, nodes: Sequence[RedisServer]) -> None:
    """Only once all have their epochs: a node that knows another takes none."""
    with node.client() as client:
        for other in nodes:
            if other is not node:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)


def _agrees(node: RedisServer, nodes: int) -> bool:
    """All nodes are known to it, all slots served."""
    try:
        with node.client() as client:
            said = dict(client.execute_command("CLUSTER INFO"))
            known = len(client.execute_command("CLUSTER SLOTS"))
    except RedisError:
        return False
    return said["cluster_state"] == "ok" and said["cluster_slots_ok"] == str(SLOTS) and known == nodes


def whole(server: RedisServer) -> None:
    """Start a server that ended, resume one that is paused."""
    if server.is_up:
        server.resume()
    else:
        server.start()


def stop_all(servers: Iterable[RedisServer]) -> None:
    for server in servers:
        server.stop()


def until(ready: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
    """Poll `ready`. Raises StartError, which names what was waited for."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise StartError(f"waited {seconds:g} s for {what}")
        time.sleep(POLL_SECONDS)
