"""Counts what the engine tells (a Progress), and has it shown: bytes, files, rate, and the time that is left."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Protocol

from inference_cache_artifacts.progress import Outcome

WINDOW_SECONDS: Final = 10.0
TICK_SECONDS: Final = 0.5


class Meter:
    """How fast it goes, over the last seconds. Pure: the caller's clock, in seconds, never back."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window = window_seconds
        self._seen: deque[tuple[float, int]] = deque()

    def observe(self, now: float, total: int) -> float:
        """Bytes per second, from all bytes that have come until `now`; 0 at first."""
        self._seen.append((now, total))
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._window:
            self._seen.popleft()
        began, before = self._seen[0]
        return (total - before) / (now - began) if now > began else 0.0


def eta(left_bytes: int, bytes_per_second: float) -> float | None:
    """Seconds; None where nothing comes in."""
    if left_bytes <= 0:
        return 0.0
    return left_bytes / bytes_per_second if bytes_per_second > 0 else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far it is."""

    bytes: int = 0
    """On the disk, of `total_bytes`."""
    total_bytes: int = 0
    files: int = 0
    """Verified, of `total_files`."""
    total_files: int = 0
    bytes_per_second: float = 0.0
    eta_seconds: float | None = None
    received_bytes: int = 0
    """Newly come from a source."""

    def fields(self) -> dict[str, int | None]:
        """As JSON, for lines and the status file."""
        return {
            "bytes": self.bytes,
            "totalBytes": self.total_bytes,
            "files": self.files,
            "totalFiles": self.total_files,
            "bytesPerSecond": round(self.bytes_per_second),
            "etaSeconds": None if self.eta_seconds is None else round(self.eta_seconds),
            "receivedBytes": self.received_bytes,
        }


class Display(Protocol):
    """Shows it to somebody; called by one thread at a time. What raises OSError is not called again (a pipe that nobody reads)."""

    @property
    def every_seconds(self) -> float:
        """At most this often `show` is called."""
        ...

    def show(self, now: Snapshot) -> None: ...

    def note(self, event: str, fields: dict[str, object]) -> None: ...

    def end(self, now: Snapshot, outcome: Outcome) -> None: ...


@dataclass(slots=True)
class _Shown:
    display: Display
    next_at: float


@dataclass(slots=True)
class _Counts:
    files: int = 0
    total_bytes: int = 0
    already_bytes: int = 0
    received: int = 0
    verified_files: int = 0
    verified_bytes: int = 0
    meter: Meter = field(default_factory=Meter)

    def snapshot(self, now: float) -> Snapshot:
        rate = self.meter.observe(now, self.received)
        # Bytes that came twice, or were wrong, are received and not there; what is verified surely is there.
        there = max(min(self.total_bytes, self.already_bytes + self.received), min(self.total_bytes, self.verified_bytes))
        left = eta(self.total_bytes - there, rate)
        return Snapshot(there, self.total_bytes, self.verified_files, self.files, rate, left, self.received)


class Counted:
    """A Progress that counts, and hands what it counted to displays from a thread of its own, so that a stall is shown too.

    The thread begins with the first plan and ends with `ended` or the end of the context.
    """

    def __init__(self, displays: Sequence[Display], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown = [_Shown(display, clock()) for display in displays]
        self._counts = _Counts()
        self._began = clock()
        self._counting = threading.Lock()
        self._showing = threading.Lock()
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def planned(self, files: int, total_bytes: int, already_bytes: int) -> None:
        with self._counting:
            before = self._counts
            self._counts = replace(before, files=files, total_bytes=total_bytes, already_bytes=already_bytes - before.received)
            self._counts.snapshot(self._clock())
            if self._ticker is None and not self._over.is_set():
                self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
                self._ticker.start()

    def received(self, count: int) -> None:
        with self._counting:
            self._counts.received += count

    def verified(self, path: str, size: int) -> None:
        with self._counting:
            self._counts.verified_files += 1
            self._counts.verified_bytes += size

    def noted(self, event: str, **fields: object) -> None:
        self._each(lambda shown: shown.display.note(event, fields))

    def ended(self, outcome: Outcome) -> None:
        if self._over.is_set():
            return
        self._stop()
        last = self._last(outcome)
        self._each(lambda shown: shown.display.end(last, outcome))

    def look(self) -> None:
        """Shows how far it is to those whose time has come."""
        now = self._clock()
        with self._counting:
            snapshot = self._counts.snapshot(now)
        self._each(lambda shown: _show(shown, now, snapshot))

    def _last(self, outcome: Outcome) -> Snapshot:
        now = self._clock()
        with self._counting:
            last = self._counts.snapshot(now)
        took = now - self._began
        last = replace(last, bytes_per_second=last.received_bytes / took if took > 0 else 0.0)
        return replace(last, bytes=last.total_bytes, files=last.total_files, eta_seconds=0.0) if outcome.is_well else last

    def _tick(self) -> None:
        while not self._over.wait(TICK_SECONDS):
            self.look()

    def _stop(self) -> None:
        self._over.set()
        if self._ticker is not None and self._ticker is not threading.current_thread():
            self._ticker.join()

    def _each(self, act: Callable[[_Shown], None]) -> None:
        with self._showing:
            for shown in list(self._shown):
                try:
                    act(shown)
                except OSError:
                    self._shown.remove(shown)


def _show(shown: _Shown, now: float, snapshot: Snapshot) -> None:
    if now >= shown.next_at:
        shown.next_at = now + shown.display.every_seconds
        shown.display.show(snapshot)
