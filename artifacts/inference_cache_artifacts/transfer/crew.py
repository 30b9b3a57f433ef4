"""How many threads fetch at once: as many as there are cores at first, and more while the cores have nothing to do.

Where the network is waited for, more connections are quicker. Where the cores are, more threads only stand in each other's way.
Called by `transferring`.
"""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from inference_cache_artifacts.errors import DiskFailed

WATCH_SECONDS: Final = 0.2
IDLE_SHARE: Final = 0.4
"""Of the time of all cores. Two threads on two cores that fetch as quickly as they can leave 0.2, a network of 1 Gbit/s leaves 0.8."""
_STAT: Final = Path("/proc/stat")


class Idle:
    """What of the machine's time its cores had nothing to do, and waited for no disk."""

    def __init__(self) -> None:
        self._seen = _ticks()

    def share(self) -> float:
        """Since it was made, or asked before; 1 where the kernel does not tell."""
        (idle, every), (idle_before, every_before) = now, _ = _ticks(), self._seen
        self._seen = now
        return (idle - idle_before) / (every - every_before) if every > every_before else 1.0


class Crew:
    def __init__(self, threads: Sequence[threading.Thread], is_fetching: Callable[[], bool]) -> None:
        """`is_fetching`: bytes have begun to come; before, idle cores say nothing."""
        self._waiting = list(threads)
        self._begun: list[threading.Thread] = []
        self._is_fetching = is_fetching

    def run(self, watch: Callable[[], None]) -> None:
        """Until every thread that was begun has ended. `watch` is called all the time, and ends it by what it raises. Raises DiskFailed."""
        idle: Idle | None = None
        self._begin(_cores())
        while alive := [thread for thread in self._begun if thread.is_alive()]:
            alive[0].join(WATCH_SECONDS)
            watch()
            if not self._waiting or not self._is_fetching():
                continue
            if idle is None:
                idle = Idle()
            elif alive[0].is_alive() and idle.share() >= IDLE_SHARE:
                self._begin(len(self._begun))

    def join(self) -> None:
        for thread in self._begun:
            thread.join()

    def _begin(self, count: int) -> None:
        """One is enough; a limit of processes may refuse the others."""
        for thread in self._waiting[:count]:
            try:
                thread.start()
            except RuntimeError as error:
                if not self._begun:
                    raise DiskFailed(f"no thread can be started: {error}") from error
                self._waiting.clear()
                return
            self._begun.append(thread)
        del self._waiting[:count]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _ticks() -> tuple[int, int]:
    """Idle, and all, since the machine started."""
    try:
        fields = [int(each) for each in _STAT.read_text().partition("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return fields[3], sum(fields)
