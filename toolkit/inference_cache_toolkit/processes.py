"""Child processes that serve HTTP: started, waited for, stopped by their own id. The demo and the tests against real servers use it."""

import random
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

POLL_SECONDS = 0.05
LOG_TAIL = 4000
PORTS: Final = range(10_000, 22_000)
"""Below those that the kernel gives to outgoing connections, and with 10,000 added too, where a Redis Cluster's bus listens.

So nobody takes the port of a server that has yet to start or is down for a moment, and no client that keeps trying is connected to itself.
"""
_given: Final = deque[int](maxlen=1000)


class StartError(Exception):
    """A child ended, or did not answer in time; the message carries the end of its log."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process of ours and the file that holds what it says."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:]


def start(name: str, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Child:
    """Start `command` with its output in `log`; `environment` None is this process's own."""
    with log.open("wb") as sink:
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment)
    return Child(name, process, log)


def stop(child: Child, seconds: float = 10.0) -> None:
    """Ask it to end, and end it after `seconds`."""
    child.process.terminate()
    try:
        child.process.wait(seconds)
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()


@contextmanager
def running(child: Child, url: str, seconds: float) -> Iterator[Child]:
    """Wait until `url` answers 200, and stop the child in the end. Raises StartError."""
    try:
        wait_for(child, lambda: answers(url), seconds)
        yield child
    finally:
        stop(child)


def wait_for(child: Child, ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if child.process.poll() is not None:
            raise StartError(f"{child.name} ended with status {child.process.returncode}:\n{child.tail()}")
        if time.monotonic() > deadline:
            raise StartError(f"{child.name} was not ready within {seconds:g} s:\n{child.tail()}")
        time.sleep(POLL_SECONDS)


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310  our own http:// address
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def free_port(wanted: int = 0, host: str = "127.0.0.1", beside: Sequence[int] = ()) -> int:
    """`wanted` if nobody listens there, else one of PORTS where nobody does, nor at those `beside` it (differences).

    It is not given to this process again soon: its server may not listen yet. Raises StartError.
    """
    if wanted and _is_free(wanted, host):
        return wanted
    for port in random.SystemRandom().sample(PORTS, 200):
        if port not in _given and all(_is_free(port + difference, host) for difference in (0, *beside)):
            _given.append(port)
            return port
    raise StartError("no port is free")


def _is_free(port: int, host: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
