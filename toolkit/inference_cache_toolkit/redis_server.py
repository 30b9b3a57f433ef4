"""One redis-server as a child process, on loopback, with all its files in one folder. The demo, the bench and the tests start it."""

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from inference_cache_toolkit.processes import Child, StartError, free_port, start, stop, wait_for

START_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 60.0
"""For one command: a SAVE of a million keys takes some of them."""
PLAIN: Final = "redis://127.0.0.1:{port}/0"
COMMON: Final = ("bind 127.0.0.1", "daemonize no")
KEEPS_NOTHING: Final = ('save ""', "appendonly no")


@dataclass(slots=True)
class RedisServer:
    """Made by `redis_server`. Every method returns when what it did is done; those that start it raise StartError."""

    folder: Path
    port: int
    command: tuple[str | Path, ...]
    url: str
    """As its users know it."""
    admin_url: str
    """With every right; the same where there are no users."""
    child: Child | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        return self._child().process.pid

    @property
    def is_up(self) -> bool:
        """Its process is there, if only paused."""
        return self.child is not None and self.child.process.poll() is None

    def client(self) -> Redis:
        """A client with every right, that tries once; the caller closes it (`with`)."""
        return Redis.from_url(self.admin_url, socket_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 0), decode_responses=True)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False

    def start(self) -> None:
        """Start it on its port. What its files hold is loaded by then."""
        self.child = start(f"redis-server on port {self.port}", self.command, self.folder / "log")
        wait_for(self.child, self.answers, START_SECONDS)

    def pause(self) -> None:
        """SIGSTOP: connections stay, and are accepted, but nothing is answered."""
        child = self._child()
        child.process.send_signal(signal.SIGSTOP)
        wait_for(child, lambda: psutil.Process(child.process.pid).status() == psutil.STATUS_STOPPED, START_SECONDS)

    def resume(self) -> None:
        """SIGCONT; what was sent meanwhile is answered now."""
        self._child().process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: no farewell, nothing saved."""
        child = self._child()
        child.process.kill()
        child.process.wait()

    def restart(self, snapshot: Path | None = None) -> None:
        """End it if it is up, and start it on the same port: with what `snapshot` holds, else with what its own persistence kept.

        By default that is nothing. A server told to keep an append-only file reads that, and no snapshot.
        """
        self.stop()
        dump = self.folder / "dump.rdb"
        if snapshot is not None:
            shutil.copyfile(snapshot, dump)
        self.start()
        if snapshot is not None:
            dump.unlink()

    def save(self) -> Path:
        """A new RDB file of all keys as they are, for `restart`; the server itself will not load it."""
        with self.client() as client:
            client.save()
        kept = self.folder / f"snapshot-{len(list(self.folder.glob('snapshot-*.rdb')))}.rdb"
        return (self.folder / "dump.rdb").rename(kept)

    def empty(self) -> None:
        """Delete every key."""
        with self.client() as client:
            client.flushall()

    def stop(self) -> None:
        """End it, paused or not; once more does nothing."""
        if self.child is not None and self.is_up:
            self.resume()
            stop(self.child)

    def _child(self) -> Child:
        if self.child is None:
            raise StartError(f"redis-server on port {self.port} was never started")
        return self.child


@contextmanager
def redis_server(folder: Path, *, port: int | None = None, config: Sequence[str] = (), via: Sequence[str] = ()) -> Iterator[RedisServer]:
    """A running server, stopped in the end. `config`: lines of redis.conf; `via`: what starts it, such as `taskset -c 0`.

    Raises StartError.
    """
    server = prepared(folder, port or free_port(), (*KEEPS_NOTHING, *config), via)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def prepared(
    folder: Path, port: int, config: Sequence[str], via: Sequence[str] = (), url: str = PLAIN, admin_url: str | None = None
) -> RedisServer:
    """A server that is yet to start, its redis.conf written; the URLs have `{port}` for the port. Raises StartError without a program."""
    program = shutil.which("redis-server", path=os.environ.get("PATH", os.defpath) + ":/usr/local/bin:/usr/bin")
    if program is None:
        raise StartError("redis-server is missing: install the Debian package redis-server")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "redis.conf"
    file.write_text("\n".join((*COMMON, f"port {port}", f'dir "{folder}"', *config, "")))
    at = str(port)
    return RedisServer(folder, port, (*via, program, file), url.replace("{port}", at), (admin_url or url).replace("{port}", at))
