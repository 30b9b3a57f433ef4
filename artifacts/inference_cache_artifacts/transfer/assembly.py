"""One file while its pieces come in, in any order: written where they belong, and hashed from the front as far as they reach.

A piece that comes in order is hashed from memory; what came early is read back, from the page cache or from a disk that is quick.
"""

import threading
from collections.abc import Iterator
from typing import Final

from inference_cache_artifacts.store.direct import pages
from inference_cache_artifacts.store.partials import Partial
from inference_cache_artifacts.transfer.hashing import Hashes
from inference_cache_artifacts.transfer.wanted import Mismatch, Wanted

READ_BYTES: Final = 1 << 20
CATCH_UP_BYTES: Final = 4 << 20
"""Read back at once, lest a connection wait for long while others' bytes are hashed."""


class Assembly:
    """`write` and `missing` may be called by several threads; `finish` by one, when nothing is missing any more."""

    def __init__(self, wanted: Wanted, partial: Partial) -> None:
        self.wanted = wanted
        self._partial = partial
        self._present = threading.Lock()
        self._hashing = threading.Lock()
        self._buffer: memoryview | None = None
        self._start_hashing()

    @property
    def present_bytes(self) -> int:
        with self._present:
            return self._partial.present.total

    def missing(self) -> list[tuple[int, int]]:
        with self._present:
            return self._partial.present.missing(self.wanted.size)

    def write(self, view: memoryview, offset: int) -> None:
        """Raises NoSpace, DiskFailed."""
        # Read without its lock: where it is out of date, the bytes take the other way to the same place.
        self._partial.write(view, offset, read_soon=offset != self._hashed)
        with self._present:
            self._partial.present.add(offset, offset + len(view))
        # Whoever hashes now goes on as far as it can; nobody waits for it.
        if self._hashing.acquire(blocking=False):
            try:
                self._hash(view, offset)
            finally:
                self._hashing.release()

    def finish(self) -> str:
        """The SHA-256 of the whole. Raises Mismatch: then nothing is there any more."""
        with self._hashing:
            self._catch_up(self.wanted.size)
            wrong = next((each.algorithm for each in self.wanted.checksums if not self._hashes.is_right(each)), None)
            if wrong is None:
                return self._hashes.sha256
        self.restart()
        raise Mismatch(f"its {wrong} is not the one that was promised")

    def restart(self) -> None:
        with self._hashing, self._present:
            self._partial.restart(self.wanted.header)
            self._start_hashing()

    def _start_hashing(self) -> None:
        self._hashed = 0
        self._hashes = Hashes(each.algorithm for each in self.wanted.checksums)

    def _hash(self, view: memoryview, offset: int) -> None:
        if self._hashed == offset:
            self._hashes.update(view)
            self._hashed += len(view)
        else:
            self._catch_up(CATCH_UP_BYTES)

    def _catch_up(self, limit: int) -> None:
        with self._present:
            end = min(self._partial.present.end_of(self._hashed), self._hashed + limit)
        for view in self._read_back(end):
            self._hashes.update(view)
            self._hashed += len(view)

    def _read_back(self, end: int) -> Iterator[memoryview]:
        if self._hashed >= end:
            return
        # Made once: memory that is new costs more than reading into it.
        self._buffer = buffer = self._buffer or pages(READ_BYTES)
        while self._hashed < end:
            count = self._partial.read(buffer[: end - self._hashed], self._hashed)
            if count == 0:
                raise Mismatch("it has fewer bytes than were written")
            yield buffer[:count]
