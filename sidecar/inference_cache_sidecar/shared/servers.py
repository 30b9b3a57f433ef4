"""Clients of the shared store by redis-py, whatever its kind: one server, Sentinel or Cluster. Made by `opening`, used through `calls`.

Nothing here retries or waits long: deadline, breaker and the next attempt are the caller's.
"""

import logging
from typing import Any, Final, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from inference_cache_sidecar.shared.address import RedisAddress
from inference_cache_sidecar.shared.sentinels import Sentinels

CONNECT_SECONDS: Final = 1.0
SOCKET_SECONDS: Final = 5.0
"""Bounds what no deadline of a caller's covers, such as a handshake."""
CONNECTIONS: Final = 64
logging.getLogger("redis").setLevel(logging.WARNING)

Node = tuple[str, int]


class Servers:
    """Opens connections as they are needed. `client` follows failovers and moved slots."""

    def __init__(self, address: RedisAddress) -> None:
        self.address = address
        self._sentinel: Sentinels | None = None
        self._cluster: RedisCluster | None = None
        self._slots_are_old = False
        self._master: tuple[str, int] | None = None
        self._of_nodes: dict[Node, Redis] = {}
        self.client = self._made()

    async def node_of(self, key: bytes) -> Node:
        """The master that holds `key`. Raises what redis-py raises."""
        if self._sentinel is not None:
            host, port = await self._sentinel.discover_master(self.address.master)
            return str(host), int(port)
        if self._cluster is None:
            return self.address.nodes[0]
        await self._with_slots(self._cluster)
        node = self._cluster.get_node_from_key(key)  # type: ignore[arg-type]  # bytes do as well
        if node is None:
            raise ConnectionError("no node of the cluster has this key")
        return str(node.host), int(node.port)

    async def follow_master(self) -> bool:
        """Leave a server that Sentinel no longer holds for the master: it may still answer, and know nothing of what is written now.

        True if there was one to leave. Raises what redis-py raises.
        """
        if self._sentinel is None:
            return False
        before, self._master = self._master, await self._sentinel.discover_master(self.address.master)
        if before in (None, self._master):
            return False
        await self.client.connection_pool.disconnect()
        return True

    async def drop_idle(self) -> None:
        """Open connections anew when they are needed: those that lie idle may lead to a server that is gone without a word."""
        if self._cluster is None:
            await self.client.connection_pool.disconnect(inuse_connections=False)

    def forget_slots(self) -> None:
        """Ask the cluster anew where its keys are, at the next call."""
        self._slots_are_old = True

    async def masters(self) -> list[Redis]:
        """A plain client for each server that holds keys, for what goes through all of them."""
        if self._cluster is None:
            return [self.client]
        await self._with_slots(self._cluster)
        nodes = [(str(node.host), int(node.port)) for node in self._cluster.get_primaries()]
        return [self._of_node(node) for node in nodes]

    def connection_options(self) -> dict[str, Any]:
        """Credentials, database and TLS, as redis-py takes them."""
        address = self.address
        options: dict[str, Any] = {"username": address.username, "password": address.password}
        if address.tls:
            given = dict(address.options)
            checks = given.get("ssl_check_hostname", "true") == "true"
            options |= {name: given[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in given}
            options |= {"ssl": True, "ssl_check_hostname": checks}
        return options

    async def close(self) -> None:
        for client in (self.client, *self._of_nodes.values(), *(self._sentinel.sentinels if self._sentinel else ())):
            await client.aclose()

    async def _with_slots(self, cluster: RedisCluster) -> None:
        await cluster.initialize()
        if self._slots_are_old:
            self._slots_are_old = False
            await cluster.nodes_manager.initialize()

    def _made(self) -> Redis:
        address = self.address
        options = self.connection_options() | self._limits()
        if address.kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in address.nodes]
            self._cluster = RedisCluster(startup_nodes=nodes, protocol=2, **options)
            return cast("Redis", self._cluster)
        options |= {"db": address.database, "protocol": 2, "max_connections": CONNECTIONS}
        if address.kind == "sentinel":
            own = {name.removeprefix("sentinel_"): value for name, value in address.options.items() if name.startswith("sentinel_")}
            tls = {name: value for name, value in self.connection_options().items() if name.startswith("ssl")}
            watched = {**own, **tls, **self._limits(), "protocol": 2}
            self._sentinel = Sentinels(address.nodes, sentinel_kwargs=watched)  # type: ignore[no-untyped-call]
            return cast("Redis", self._sentinel.master_for(address.master, **options))
        host, port = address.nodes[0]
        return Redis(host=host, port=port, **options)

    def _of_node(self, node: Node) -> Redis:
        client = self._of_nodes.get(node)
        if client is None:
            options = self.connection_options() | self._limits() | {"protocol": 2}
            client = self._of_nodes[node] = Redis(host=node[0], port=node[1], **options)
        return client

    @staticmethod
    def _limits() -> dict[str, Any]:
        return {
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": SOCKET_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "client_name": "inference-cache",
        }
