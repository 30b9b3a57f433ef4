"""What one command costs: its time, its CPU time with all its children, and the most memory that they had together."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 0.02
LOG_TAIL: Final = 2000
_BLOCK_BYTES: Final = 1 << 20


class ToolFailed(Exception):
    """A command ended with another status than 0; the message has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Spent:
    seconds: float
    cpu_seconds: float
    """User and system, with all children that it waited for."""
    peak_mib: float
    """One process: its high-water mark. Several: the most that they had together at a look, each shared page counted once."""


def have_memory(folder: Path, size: int) -> None:
    """A virtual machine gives free memory back to its host, and whoever writes next waits until it has some again: nobody's cost here."""
    filler, block = folder / "filler", bytes(_BLOCK_BYTES)
    with filler.open("wb", buffering=0) as file:
        for _ in range(0, size, _BLOCK_BYTES):
            file.write(block)
    os.sync()
    filler.unlink()


def spent(command: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> Spent:
    """Raises ToolFailed."""
    with log.open("wb") as sink:
        began = time.perf_counter()
        child = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment)
        with _Watch(child.pid) as watch:
            _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise ToolFailed(f"{command} ended with {child.returncode}:\n{log.read_text(errors='replace')[-LOG_TAIL:]}")
    return Spent(seconds, usage.ru_utime + usage.ru_stime, watch.peak_kib / 1024)


class _Watch:
    """Looks at a process and its children, since `ru_maxrss` knows only the largest, and counts from before its exec."""

    def __init__(self, pid: int) -> None:
        self.peak_kib = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            pids = _tree(self._pid)
            file, name = ("status", "VmHWM:") if len(pids) == 1 else ("smaps_rollup", "Pss:")
            self.peak_kib = max(self.peak_kib, sum(_kib(pid, file, name) for pid in pids))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        with suppress(OSError):
            for tasks in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (tasks / "children").read_text().split())
    return found


def _kib(pid: int, file: str, name: str) -> int:
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
    return 0
