"""Files of the agent's into the store, several at a time, each until it is whole. Called by `copying`."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from inference_cache_artifacts.handover.client import Away
from inference_cache_artifacts.handover.contact import Contact
from inference_cache_artifacts.handover.lines import PIPE_BYTES, Broken, Line, Unfit
from inference_cache_artifacts.handover.protocol import FILE
from inference_cache_artifacts.manifest import File
from inference_cache_artifacts.progress import Progress
from inference_cache_artifacts.store import blobs, disk, partials
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.transfer.limiting import Limiter, backoff_seconds

TRIES: Final = 5
"""Of a file that breaks off, however well the agent does in between."""
WATCH_SECONDS: Final = 0.2
_LONGEST_SECONDS: Final = 2.0
_MODE: Final = 0o600


class Stopped(Exception):
    """It ends for another reason; never leaves this module."""


class Receiving:
    """Of one tree: made, run, and thrown away. The caller has the lease of the tree."""

    def __init__(self, contact: Contact, store: Store, tree: str, progress: Progress, bytes_per_second: float | None) -> None:
        self._contact = contact
        self._store = store
        self._tree = tree
        self._progress = progress
        self._limiter = Limiter(bytes_per_second)
        self._most = PIPE_BYTES if bytes_per_second is None else min(PIPE_BYTES, max(1, int(bytes_per_second / 4)))
        self._stop = threading.Event()
        self._away = _Absence()
        self._lines: list[Line] = []
        self._failed: BaseException | None = None

    def run(self, files: Sequence[File], connections: int, away_seconds: float, watch: Callable[[], None]) -> None:
        """Returns when each is a blob. `watch` is called all the time, and ends it by what it raises.

        Raises Away where the agent is away for longer than that, or breaks off again and again; ArtifactError.
        """
        self._lines = [Line(self._contact) for _ in range(min(connections, len(files)))]
        waiting = deque(files)
        threads = [
            threading.Thread(target=self._work, args=(line, waiting, away_seconds), name=f"copy-{number}", daemon=True)
            for number, line in enumerate(self._lines)
        ]
        try:
            for thread in threads:
                thread.start()
            _wait(threads, watch)
        finally:
            self._end()
            for thread in (each for each in threads if each.ident is not None):
                thread.join()
        if self._failed is not None:
            raise self._failed

    def _end(self) -> None:
        self._stop.set()
        for line in self._lines:
            line.break_off()

    def _work(self, line: Line, waiting: deque[File], away_seconds: float) -> None:
        """A thread. Whatever ends it early ends the others too."""
        try:
            with closing(line):
                while not self._stop.is_set() and (file := _next(waiting)) is not None:
                    self._bring(line, file, away_seconds)
        except Stopped:
            pass
        # An edge: a thread's error is the caller's, whatever it is.
        except BaseException as error:
            self._failed = self._failed or error
            self._end()

    def _bring(self, line: Line, file: File, away_seconds: float) -> None:
        """Begun again, and not gone on with: who has it is on the same node."""
        failures = breaks = 0
        while True:
            try:
                return self._receive(line, file)
            except Unfit:
                raise
            except Away as error:
                failures, breaks = failures + 1, breaks + isinstance(error, Broken)
                self._give_up(error, breaks, away_seconds)
                self._progress.noted("retry", file=file.path, why=str(error))
            self._stop.wait(backoff_seconds(failures, longest=_LONGEST_SECONDS))

    def _give_up(self, error: Away, breaks: int, away_seconds: float) -> None:
        """Raises the error where it is not tried again, Stopped."""
        if self._stop.is_set():
            raise Stopped from None
        if breaks == TRIES or self._away.seconds() > away_seconds:
            raise error

    def _receive(self, line: Line, file: File) -> None:
        """The file is a blob. Raises Away, ArtifactError."""
        path = FILE.format(tree=self._tree, path=quote(file.path, safe="/~"))
        data = self._store.partials / f"{self._tree}-{file.sha256[:16]}{partials.DATA}"
        with _made(data, file.size) as sink:
            line.receive(path, file, sink, self._most, self._came)
        blobs.adopt(self._store, data, file.sha256)
        self._progress.verified(file.path, file.size)

    def _came(self, count: int) -> None:
        self._away.over()
        self._progress.received(count)
        self._stop.wait(self._limiter.seconds_for(count))


class _Absence:
    """How long the agent has been away, for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None

    def seconds(self) -> float:
        """It is away: since when?"""
        now = time.monotonic()
        with self._lock:
            self._since = now if self._since is None else self._since
            return now - self._since

    def over(self) -> None:
        self._since = None


@contextmanager
def _made(data: Path, size: int) -> Iterator[int]:
    """A new file with room for so many bytes; nothing is left of it where it fails. Raises NoSpace, DiskFailed."""
    with disk.disk_errors(data):
        # Never the one that was there: somebody who lost the lease may still write to it.
        data.unlink(missing_ok=True)
        sink = os.open(data, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        try:
            os.posix_fallocate(sink, 0, size)
            yield sink
        except BaseException:
            data.unlink(missing_ok=True)
            raise
        finally:
            os.close(sink)


def _next(waiting: deque[File]) -> File | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _wait(threads: Sequence[threading.Thread], watch: Callable[[], None]) -> None:
    for thread in threads:
        while thread.is_alive():
            thread.join(WATCH_SECONDS)
            watch()
