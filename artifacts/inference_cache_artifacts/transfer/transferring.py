"""Fetch files from mirrors, all at once and each until it is whole and right. Called by `fetching`, which says where they go then."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from inference_cache_artifacts.errors import Corrupt
from inference_cache_artifacts.progress import Progress
from inference_cache_artifacts.store.leases import LeaseLost
from inference_cache_artifacts.store.partials import Partial
from inference_cache_artifacts.transfer.assembly import Assembly
from inference_cache_artifacts.transfer.crew import Crew
from inference_cache_artifacts.transfer.limiting import Limiter
from inference_cache_artifacts.transfer.mirrors import Mirrors
from inference_cache_artifacts.transfer.pieces import Pieces, Stopped
from inference_cache_artifacts.transfer.schedule import Job, Schedule
from inference_cache_artifacts.transfer.wanted import Fetched, Mismatch, Wanted


class Transfer:
    """One run: made, run, and thrown away."""

    def __init__(self, mirrors: Mirrors, progress: Progress, fetched: Callable[[Fetched], None], bytes_per_second: float | None) -> None:
        """`fetched` is called by any thread, once for every file, when nobody has it open any more."""
        self._mirrors = mirrors
        self._progress = progress
        self._fetched = fetched
        self._stop = threading.Event()
        self._pieces = Pieces(mirrors, Limiter(bytes_per_second), progress, self._stop)
        self._partials: dict[str, Partial] = {}
        self._failed: BaseException | None = None

    def run(self, files: Sequence[Wanted], connections: int, watch: Callable[[], None]) -> None:
        """Returns when every file is there. `watch` is called all the time, and ends the run by what it raises.

        Raises ArtifactError; what was fetched until then stays for the next run.
        """
        schedule = Schedule(files, self._begin, connections)
        threads = [threading.Thread(target=self._work, args=(schedule,), name=f"fetch-{number}") for number in range(connections)]
        crew = Crew(threads, lambda: self._pieces.fetching)
        with self._partials_closed():
            try:
                crew.run(watch)
            finally:
                self._stop.set()
                crew.join()
        if self._failed is not None:
            raise self._failed

    def _work(self, schedule: Schedule) -> None:
        """A thread. Whatever ends it early ends the others too."""
        try:
            buffer = self._pieces.buffer()
            while not self._stop.is_set() and (piece := schedule.take()) is not None:
                self._pieces.fetch(piece, buffer)
                if schedule.done(piece) and not self._finished(piece.job):
                    schedule.again(piece.job)
        except Stopped:
            pass
        # An edge: a thread's error is the caller's, whatever it is.
        except BaseException as error:
            self._failed = self._failed or error
            self._stop.set()

    def _begin(self, wanted: Wanted) -> Assembly:
        partial = self._partials[wanted.path] = Partial(wanted.data, wanted.header)
        return Assembly(wanted, partial)

    def _finished(self, job: Job) -> bool:
        """False where it must be fetched once more. Raises Corrupt where no mirror is left that could have it."""
        wanted = job.assembly.wanted
        try:
            sha256 = job.assembly.finish()
        except Mismatch as error:
            if not job.asked and not job.mixed:
                raise Corrupt(f"{wanted.path}: {error}", wanted.path) from None
            self._mirrors.blame(wanted.path, job.asked, str(error), fetched_whole=not job.mixed)
            self._progress.noted("mismatch", file=wanted.path)
            job.asked, job.mixed = set(), False
            return False
        with closing(self._partials.pop(wanted.path)) as partial:
            if not partial.is_still(wanted.data):
                raise LeaseLost(f"{wanted.data}: another process took over while this one stood still")
        self._fetched(Fetched(wanted, sha256))
        self._progress.verified(wanted.path, wanted.size)
        return True

    @contextmanager
    def _partials_closed(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                yield
            finally:
                for partial in self._partials.values():
                    stack.callback(partial.close)
