"""A master with its replicas, watched by Sentinel: each a process of its own. `sentinel_servers` starts them all.

A failover leaves the old master believing it is one for about ten seconds, until the sentinels make it a replica: so it is in the field.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError, ResponseError
from tests.services.redis_servers import stop_all, until, whole

from inference_cache_toolkit.processes import free_port
from inference_cache_toolkit.redis_server import KEEPS_NOTHING, RedisServer, prepared

NAME: Final = "mymaster"
REPLICATING: Final = (
    # A replica is in step as soon as it is connected, and nobody waits for it in the end.
    *("repl-diskless-sync yes", "repl-diskless-sync-delay 0", "repl-ping-replica-period 1", "shutdown-timeout 0"),
)
WATCHING: Final = (
    f"sentinel monitor {NAME} 127.0.0.1 {{master}} 2",
    f"sentinel down-after-milliseconds {NAME} 3000",
    f"sentinel failover-timeout {NAME} 3000",
)


@dataclass(frozen=True, slots=True)
class SentinelServers:
    """Any may be paused, killed and started again; who is master is asked of the sentinels each time."""

    servers: tuple[RedisServer, ...]
    sentinels: tuple[RedisServer, ...]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{sentinel.port}' for sentinel in self.sentinels)}/{NAME}/0"

    def master_port(self) -> int:
        """As most sentinels say."""
        said = [port for port in map(_master_according_to, self.sentinels) if port is not None]
        return max(said, key=said.count)

    def master(self) -> RedisServer:
        return self._server(self.master_port())

    def replicas(self) -> tuple[RedisServer, ...]:
        port = self.master_port()
        return tuple(server for server in self.servers if server.port != port)

    def failover(self) -> RedisServer:
        """Have a replica promoted while the master lives; gives the new master once it answers as one."""
        old = self.master_port()
        until(self._failover_began, "a failover to begin")
        return self.promoted(old)

    def kill_master(self) -> RedisServer:
        """SIGKILL, and nothing waited for: `promoted` does that. Gives the killed one."""
        master = self.master()
        master.kill()
        return master

    def promoted(self, old: int) -> RedisServer:
        """The master after the one on port `old`: when every sentinel that is up names it, and it answers as one."""

        def agreed() -> bool:
            said = {_master_according_to(sentinel) for sentinel in self.sentinels if sentinel.is_up}
            return old not in said and len(said) == 1 and said != {None} and _replication(self.master()).get("role") == "master"

        until(agreed, f"a master other than {old}")
        return self.master()

    def whole(self) -> None:
        """Bring back what a test left paused or ended: one master, the others its replicas and in step."""
        for server in (*self.servers, *self.sentinels):
            whole(server)
        until(self._in_step, "the replicas to follow one master")

    def empty(self) -> None:
        """Delete every key."""
        self.master().empty()

    def _failover_began(self) -> bool:
        try:
            with self.sentinels[0].client() as client:
                client.execute_command("SENTINEL", "FAILOVER", NAME)
        except ResponseError as error:
            if str(error).startswith(("NOGOODSLAVE", "INPROG")):
                return False
            raise
        return True

    def _in_step(self) -> bool:
        said = {_master_according_to(sentinel) for sentinel in self.sentinels}
        if len(said) != 1 or None in said:
            return False
        master = self.master()
        replicas = [server for server in self.servers if server is not master]
        if _replication(master).get("role") != "master" or not all(_follows(server, master) for server in replicas):
            return False
        return all(_sees_all(sentinel, len(replicas)) for sentinel in self.sentinels)

    def _server(self, port: int) -> RedisServer:
        return next(server for server in self.servers if server.port == port)


@contextmanager
def sentinel_servers(folder: Path, replicas: int = 1, config: Sequence[str] = ()) -> Iterator[SentinelServers]:
    """A master, `replicas` and three sentinels, agreed and in step. `config`: lines of redis.conf. Raises StartError."""
    master = free_port()
    following = (f"replicaof 127.0.0.1 {master}",)
    lines = (*KEEPS_NOTHING, *REPLICATING, *config)
    servers = [prepared(folder / "redis-0", master, lines)]
    servers += [prepared(folder / f"redis-{number}", free_port(), (*lines, *following)) for number in range(1, replicas + 1)]
    sentinels = _sentinels(folder, [server.port for server in servers])
    together = SentinelServers(tuple(servers), sentinels)
    try:
        together.whole()
        yield together
    finally:
        stop_all((*sentinels, *servers))


def _sentinels(folder: Path, servers: Sequence[int]) -> tuple[RedisServer, ...]:
    """Three, not yet started. They are told of each other and of the replicas, which they would take seconds to discover."""
    known = {free_port(): secrets.token_hex(20) for _ in range(3)}
    return tuple(_sentinel(folder / f"sentinel-{port}", port, known, servers) for port in known)


def _sentinel(folder: Path, port: int, known: dict[int, str], servers: Sequence[int]) -> RedisServer:
    lines = [f"sentinel myid {known[port]}", *(line.format(master=servers[0]) for line in WATCHING)]
    lines += [f"sentinel known-replica {NAME} 127.0.0.1 {replica}" for replica in servers[1:]]
    lines += [f"sentinel known-sentinel {NAME} 127.0.0.1 {other} {name}" for other, name in known.items() if other != port]
    server = prepared(folder, port, lines)
    return replace(server, command=(*server.command, "--sentinel"))


def _master_according_to(sentinel: RedisServer) -> int | None:
    """None if it does not answer."""
    try:
        with sentinel.client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
    except RedisError:
        return None
    return int(port)


def _sees_all(sentinel: RedisServer, replicas: int) -> bool:
    """It is connected to the master, to both other sentinels and to so many replicas, and takes none of them for down."""
    try:
        with sentinel.client() as client:
            seen = [client.sentinel_master(NAME), *client.sentinel_sentinels(NAME), *client.sentinel_slaves(NAME)]
    except RedisError:
        return False
    # Whatever is wrong stands beside the word; what a sentinel said of a former master stands there for five seconds more.
    return [each["flags"].replace(",master_down", "") for each in seen] == ["master", "sentinel", "sentinel", *["slave"] * replicas]


def _follows(server: RedisServer, master: RedisServer) -> bool:
    """It replicates `master` and is in step; one that takes itself for a master is told to, which Sentinel would do seconds later."""
    said = _replication(server)
    if said.get("role") == "master":
        with server.client() as client:
            client.replicaof("127.0.0.1", master.port)
    return said.get("master_port") == master.port and said.get("master_link_status") == "up"


def _replication(server: RedisServer) -> dict[str, object]:
    """INFO's section; empty if it does not answer."""
    try:
        with server.client() as client:
            return dict(client.info("replication"))
    except RedisError:
        return {}
