"""Server processes of a test cluster: paused, killed, started again, and ended with the process that started them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.cluster.errors import NotReady

POLL_SECONDS: Final = 0.05
SLOW: Final = 5.0
"""What is promised is measured on a machine that does nothing else; here it may take so many times as long."""
LOG_TAIL: Final = 3000
LEASH: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""The kernel kills the process once the *thread* that started it has ended."""
_STARTER: Final = ThreadPoolExecutor(1, "cluster-servers")
"""So one thread that lives as long as this process starts them all, whoever asks."""


@dataclass(slots=True)
class Server:
    """One process, not yet started; what it says is added to `log`."""

    name: str
    command: Sequence[str | Path]
    log: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        assert not self.is_up, f"{self.name} is running"
        self._process = _STARTER.submit(self._begin).result()

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """Stop it in its tracks: its connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash would; paused or ended ones too."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()

    def wait(self, ready: Callable[[], bool], seconds: float) -> None:
        """Until `ready`. Raises NotReady."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.is_up:
                raise NotReady(f"{self.name} ended:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise NotReady(f"{self.name} was not ready within {seconds:g} s:\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:] if self.log.exists() else ""

    def _begin(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as sink:
            return subprocess.Popen(
                [*LEASH, *self.command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                env=environment(), start_new_session=True,
            )  # fmt: skip


@contextmanager
def started(*servers: Server) -> Iterator[None]:
    """All of them run meanwhile; the last is ended first."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.start()
        yield


def environment() -> dict[str, str]:
    """This process's own, without proxies, which would stand between parts of the cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "PATH": f"{kept.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"}


def until(ready: Callable[[], bool], what: str, seconds: float) -> None:
    """Poll `ready`. Raises NotReady, which names what was waited for."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise NotReady(f"waited {seconds:g} s for {what}")
        time.sleep(POLL_SECONDS)
