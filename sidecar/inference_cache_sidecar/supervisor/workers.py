"""Worker processes: started on the inherited sockets, signalled, and reaped. `supervising` decides which live."""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

from inference_cache_sidecar.supervisor.inheritance import INHERITED_VARIABLE, Inherited, inherited_text
from inference_cache_sidecar.supervisor.plan import Plan
from inference_cache_sidecar.supervisor.shared_page import SharedPage

WORKER_MODULE: Final = "inference_cache_sidecar.supervisor.worker"


class Reason(Enum):
    """Why a worker was started."""

    START = auto()
    STANDBY = auto()
    """The one that serves is late."""
    HAND_OVER = auto()


@dataclass(slots=True)
class Worker:
    pid: int
    slot: int
    started: float
    reason: Reason
    retired: float | None = None
    """Since when its successor serves."""
    pushed: bool = False
    """It was told to end by a signal."""

    def signal(self, number: int) -> None:
        """It is a child that was not reaped yet: its id is still its own."""
        os.kill(self.pid, number)

    def resident_bytes(self) -> int:
        """0 if it cannot be read."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return 0


def start_worker(plan: Plan, page: SharedPage, slot: int, reason: Reason, now: float, environment: Mapping[str, str]) -> Worker:
    """Raises OSError."""
    page.clear(slot)
    inherited = Inherited(
        plan.descriptors("listen"), plan.descriptors("admin"), plan.descriptors("features"), page.descriptor, slot, os.getpid()
    )
    command = [sys.executable, "-P", "-m", WORKER_MODULE, *plan.arguments]
    variables = {**environment, INHERITED_VARIABLE: inherited_text(inherited)}
    defaults = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE)
    pid = os.posix_spawn(sys.executable, command, variables, setsigmask=(), setsigdef=defaults)
    return Worker(pid, slot, now, reason)


def reaped() -> list[tuple[int, int]]:
    """Process id and exit status (128 and more: a signal) of all children that have ended; orphans that came to process 1 among them."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        code = os.waitstatus_to_exitcode(status)
        ended.append((pid, code if code >= 0 else 128 - code))
