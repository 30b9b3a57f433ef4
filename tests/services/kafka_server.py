"""One real Kafka broker, its own controller too, as a child process on loopback with all its files in one folder. Tests start it.

It is small (a heap of at most 256 MB, topics of one partition unless asked otherwise) and makes topics as they are asked for.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from inference_cache_toolkit.processes import Child, StartError, free_port, start, stop, wait_for

START_SECONDS: Final = 120.0
FORMAT_SECONDS: Final = 120.0
STARTED: Final = "Kafka Server started"
"""What its log says when clients are served."""
JAVA_OPTIONS: Final = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
SETTINGS: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=CLIENTS://127.0.0.1:{port}
listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENTS
log.dirs={data}
num.partitions=1
auto.create.topics.enable=true
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
num.network.threads=1
num.io.threads=2
background.threads=1
log.cleaner.dedupe.buffer.size=2097152
log.index.size.max.bytes=65536
"""


@dataclass(slots=True)
class KafkaServer:
    """Made by `kafka_server`. Every method returns when what it did is done; those that start it raise StartError."""

    folder: Path
    port: int
    command: tuple[str | Path, ...]
    child: Child | None = field(default=None, repr=False)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._child().process.pid

    @property
    def is_up(self) -> bool:
        """Its process is there, if only paused."""
        return self.child is not None and self.child.process.poll() is None

    def start(self) -> None:
        """Start it on its port, with the topics and offsets it had."""
        child = self.child = start(f"Kafka on port {self.port}", self.command, self.folder / "log")
        wait_for(child, lambda: STARTED in child.log.read_text(errors="replace"), START_SECONDS)

    def pause(self) -> None:
        """SIGSTOP: connections stay, and are accepted, but nothing is answered."""
        child = self._child()
        child.process.send_signal(signal.SIGSTOP)
        wait_for(child, lambda: psutil.Process(child.process.pid).status() == psutil.STATUS_STOPPED, START_SECONDS)

    def resume(self) -> None:
        """SIGCONT; what was sent meanwhile is answered now."""
        self._child().process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: no farewell; what it had written stays."""
        child = self._child()
        child.process.kill()
        child.process.wait()

    def stop(self) -> None:
        """End it, paused or not, keeping its files; once more does nothing."""
        if self.child is not None and self.is_up:
            self.resume()
            stop(self.child, seconds=30.0)

    def _child(self) -> Child:
        if self.child is None:
            raise StartError(f"Kafka on port {self.port} was never started")
        return self.child


@contextmanager
def kafka_server(folder: Path, *, config: Sequence[str] = (), formatting: Sequence[str] = ()) -> Iterator[KafkaServer]:
    """A running broker, stopped in the end. Raises StartError.

    `config`: lines of server.properties that add to ours, or replace them; `formatting`: options of `kafka-storage.sh format`.
    """
    server = prepared(folder, config=config, formatting=formatting)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def prepared(folder: Path, *, config: Sequence[str] = (), formatting: Sequence[str] = ()) -> KafkaServer:
    """A broker that is yet to start, on a port that nobody has, its storage formatted. Raises StartError."""
    folder.mkdir(parents=True, exist_ok=True)
    port, file = free_port(), folder / "server.properties"
    settings = SETTINGS.format(port=port, controller_port=free_port(), data=folder / "data")
    file.write_text("\n".join((settings, *config, "")))
    java = _java(_jars())
    _format(java, file, formatting)
    return KafkaServer(folder, port, (*java, "kafka.Kafka", file))


def _java(jars: Path) -> tuple[str, ...]:
    program = shutil.which("java")
    if program is None:
        raise StartError("java is missing: install the Debian package openjdk-17-jre-headless (or default-jre-headless)")
    return (program, *JAVA_OPTIONS, "-cp", f"{jars}/*")


def _jars() -> Path:
    """The broker's jars, installed if they are missing."""
    script = Path(__file__).with_name("install_kafka.py")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=os.environ)
    if run.returncode != 0:
        raise StartError(run.stderr)
    return Path(run.stdout.strip())


def _format(java: Sequence[str], settings: Path, options: Sequence[str]) -> None:
    cluster = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
    command = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--config", str(settings), *options]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=FORMAT_SECONDS, check=False, cwd=settings.parent
    )
    if run.returncode != 0:
        raise StartError(f"Kafka's storage could not be formatted:\n{run.stdout[-4000:]}")
