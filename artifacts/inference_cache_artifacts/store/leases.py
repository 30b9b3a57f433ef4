"""One fetch of a name at a time, among all processes of a node and all pods that share a file system.

Under one kernel the lock on the lease file tells, at once and for sure, whether its holder lives; of another kernel only the beats do:
a waiter counts the seconds without one on its own monotonic clock, and compares no clocks.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Literal

from inference_cache_artifacts.errors import ArtifactError
from inference_cache_artifacts.store import disk, lease_files
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.lease_files import Content

TakenOver = Literal["no", "dead", "silent"]


class LeaseLost(ArtifactError):
    """We stood still for so long that somebody else went on in our place."""

    reason: ClassVar[str] = "LeaseLost"


@dataclass(frozen=True, slots=True)
class Timing:
    """Every holder and waiter of a store has the same."""

    beat_seconds: float = 2.0
    ttl_seconds: float = 20.0
    """Without a beat, a holder under another kernel is given up: ten beats, since a shared disk may stall."""


DEFAULT: Final = Timing()


class Lease:
    """Held until released, or until somebody took it over: `check` before anything that cannot be undone."""

    def __init__(self, folder: Path, name: str, number: int, fd: int, taken_over: TakenOver) -> None:
        self.name: Final = name
        self.number: Final = number
        self.taken_over: Final[TakenOver] = taken_over
        """dead: its holder is no more. silent: it may still be alive, and write to what it has open."""
        self._folder = folder
        self._path = folder / f"{name}.{number}"
        self._fd = fd
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def is_held(self) -> bool:
        """Raises DiskFailed."""
        with disk.disk_errors(self._path):
            return lease_files.is_at(self._path, self._fd) and lease_files.numbers(self._folder, self.name)[-1:] == [self.number]

    def check(self) -> None:
        """Raises LeaseLost, DiskFailed."""
        if not self.is_held():
            raise LeaseLost(f"{self._path}: another process took over while this one stood still")

    def start_beating(self, beat_seconds: float) -> None:
        self._thread = threading.Thread(target=self._beat, args=(beat_seconds,), name=f"lease {self.name}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Whoever waits goes on; safe after the lease was lost. Raises DiskFailed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            with disk.disk_errors(self._path):
                if lease_files.is_at(self._path, self._fd):
                    self._path.unlink(missing_ok=True)
        finally:
            os.close(self._fd)

    def _beat(self, beat_seconds: float) -> None:
        # A disk that takes no beat makes others take over in the end, and `check` says so: there is nothing to do here.
        while not self._stop.wait(beat_seconds):
            with suppress(OSError):
                self._beat_once()

    def _beat_once(self) -> None:
        content = lease_files.parse(os.pread(self._fd, 4096, 0))
        if content is not None:
            os.pwrite(self._fd, replace(content, beat=content.beat + 1).text(), 0)
            os.fsync(self._fd)


@contextmanager
def waiting(store: Store, name: str, *, until: Callable[[], bool], timing: Timing = DEFAULT) -> Iterator[Lease | None]:
    """The lease, as soon as nobody else has it; None as soon as `until` says that there is nothing left to do.

    `until` is asked at every look, and once more with the lease in hand. Raises NoSpace, DiskFailed, and what `until` raises.
    """
    lease = _wait(store.leases, name, until, timing)
    try:
        yield lease
    finally:
        if lease is not None:
            lease.release()


def _wait(folder: Path, name: str, until: Callable[[], bool], timing: Timing) -> Lease | None:
    watch = _Watch(timing.ttl_seconds)
    while not until():
        with disk.disk_errors(folder / name):
            lease = _try(folder, name, watch)
        if lease is not None:
            return _begun(lease, until, timing)
        time.sleep(0.05 + secrets.randbelow(200) / 1000)
    return None


def _begun(lease: Lease, until: Callable[[], bool], timing: Timing) -> Lease | None:
    try:
        over = until()
    except BaseException:
        lease.release()
        raise
    if over:
        lease.release()
        return None
    lease.start_beating(timing.beat_seconds)
    return lease


class _Watch:
    """How long a lease file has not changed, on our own clock."""

    def __init__(self, ttl_seconds: float) -> None:
        self._ttl_seconds = ttl_seconds
        self._seen: tuple[int, bytes] | None = None
        self._since = time.monotonic()

    def is_silent(self, number: int, text: bytes) -> bool:
        if (number, text) != self._seen:
            self._seen, self._since = (number, text), time.monotonic()
        return time.monotonic() - self._since >= self._ttl_seconds


def _try(folder: Path, name: str, watch: _Watch) -> Lease | None:
    known = lease_files.numbers(folder, name)
    if not known:
        return _take(folder, name, known, "no", suspect=False)
    path = folder / f"{name}.{known[-1]}"
    text = lease_files.read(path)
    if text is None:
        return None
    content = lease_files.parse(text)
    if content is not None and content.locked and content.boot_id == lease_files.boot_id():
        return _take_from_dead(folder, name, known, suspect=content.suspect)
    return _take(folder, name, known, "silent", suspect=True) if watch.is_silent(known[-1], text) else None


def _take_from_dead(folder: Path, name: str, known: list[int], *, suspect: bool) -> Lease | None:
    """Its lock stays ours until our own lease is in place: so no other of this kernel can prove the same."""
    fd = lease_files.lock_dead(folder / f"{name}.{known[-1]}")
    if fd is None:
        return None
    try:
        return _take(folder, name, known, "silent" if suspect else "dead", suspect=suspect)
    finally:
        os.close(fd)


def _take(folder: Path, name: str, known: list[int], taken_over: TakenOver, *, suspect: bool) -> Lease | None:
    """Of two that try at once, one at least sees the other's file, and steps back from its own."""
    number = known[-1] + 1 if known else 1
    content = Content(secrets.token_hex(8), lease_files.boot_id(), os.getpid(), 0, locked=False, suspect=suspect)
    fd = lease_files.create(folder, name, number, content)
    if fd is None:
        return None
    lease = Lease(folder, name, number, fd, taken_over)
    if set(lease_files.numbers(folder, name)) - {*known, number}:
        lease.release()
        return None
    for each in known:
        (folder / f"{name}.{each}").unlink(missing_ok=True)
    return lease
