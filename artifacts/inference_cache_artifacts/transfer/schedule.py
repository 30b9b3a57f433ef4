"""Which piece of which file is fetched next. As many files at once as there are connections, so that most bytes come in order."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from inference_cache_artifacts.transfer.assembly import Assembly
from inference_cache_artifacts.transfer.wanted import Wanted

PIECE_BYTES: Final = 32 << 20
"""Large enough that a request costs nothing, small enough that the last file's pieces keep all connections busy."""


@dataclass(slots=True)
class Job:
    """A file that has been begun."""

    assembly: Assembly
    pieces: deque[tuple[int, int]]
    """Not yet given to anybody; start inclusive, end exclusive."""
    at_work: int = 0
    asked: set[int] = field(default_factory=set)
    """Mirrors whose bytes are in it."""
    mixed: bool = False
    """It holds bytes of a former run, or of a file that became another one: if it turns out wrong, nobody is to blame."""
    changes: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    job: Job
    start: int
    end: int


class Schedule:
    """`take` and `done` may be called by several threads."""

    def __init__(self, files: Sequence[Wanted], begin: Callable[[Wanted], Assembly], at_once: int) -> None:
        self._waiting = deque(files)
        self._begin = begin
        self._at_once = at_once
        self._jobs: list[Job] = []
        self._lock = threading.Lock()

    def take(self) -> Piece | None:
        """The next piece; of no bytes where a file is whole already. None: there is nothing more to begin. Raises what `begin` raises."""
        with self._lock:
            job = self._next_job()
            if job is None:
                return None
            start, end = job.pieces.popleft()
            job.at_work += 1
            return Piece(job, start, end)

    def done(self, piece: Piece) -> bool:
        """True for the one that ends a file: it is the caller's to finish."""
        with self._lock:
            piece.job.at_work -= 1
            ends = not piece.job.at_work and not piece.job.pieces
            if ends:
                self._jobs.remove(piece.job)
            return ends

    def again(self, job: Job) -> None:
        """A file that turned out wrong is fetched once more."""
        with self._lock:
            job.pieces.extend(_pieces(job.assembly))
            self._jobs.append(job)

    def _next_job(self) -> Job | None:
        open_jobs = [job for job in self._jobs if job.pieces]
        if self._waiting and (not open_jobs or len(self._jobs) < self._at_once):
            assembly = self._begin(self._waiting.popleft())
            job = Job(assembly, deque(_pieces(assembly)), mixed=assembly.present_bytes > 0)
            self._jobs.append(job)
            return job
        return min(open_jobs, key=lambda job: job.at_work, default=None)


def _pieces(assembly: Assembly) -> list[tuple[int, int]]:
    gaps = assembly.missing()
    # Cut where whole pieces are in the file: two connections never write the same page of it.
    cuts = [[gap, *range(gap - gap % PIECE_BYTES + PIECE_BYTES, end, PIECE_BYTES), end] for gap, end in gaps]
    return [piece for each in cuts for piece in itertools.pairwise(each)] or [(0, 0)]
