"""Writes and reads past the page cache (O_DIRECT), on a disk that is quick enough to be waited for. Called by `partials`.

Copying into the page cache costs as much CPU time as receiving does, and a model's pages drive out what the node needs in memory. A disk
that is slow is better left to the kernel, which writes behind; so is a network file system, where each such write waits for the server.
"""

import errno
import mmap
import os
import time
from pathlib import Path
from typing import Final

ALIGNMENT: Final = max(4096, mmap.PAGESIZE)
"""Of the place in the file, of the length and of the memory. A page is never written both ways; a disk that asks for more says EINVAL."""
QUICK_BYTES_PER_SECOND: Final = 1e9
"""Of one write. NVMe disks of a node reach it; volumes behind a network do not, since each write travels for longer."""
TRIES: Final = 64
"""A disk is slow after so many slow writes in a row: on a busy machine most have waited for a core, or the interpreter's lock, too."""
ASKED_EVERY: Final = 16
"""Writes of a slow disk, lest it was only busy."""
_BLOCK_DEVICES: Final = Path("/sys/dev/block")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def pages(size: int) -> memoryview:
    """So many bytes of memory, zeros, that begin where a page does; given back when nobody has it any more."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Direct:
    """`write` and `read` may be called by several threads; `close` when none is in them.

    What it knows of the disk is kept without a lock: at worst a write takes the other way, and either way is right.
    """

    def __init__(self, descriptor: int) -> None:
        """Of an open file, which stays the caller's. Where it cannot be written so, nothing ever is."""
        self._descriptor = _opened(descriptor)
        self._was_quick = False
        self._slow = 0
        """Slow writes in a row."""
        self._passed_over = 0

    @property
    def is_quick(self) -> bool:
        """What was written need not stay in memory until it is read."""
        return self._was_quick and self._slow < TRIES

    def write(self, view: memoryview, offset: int) -> int:
        """How many bytes, from the front of `view`, are written: the rest is better written, or can only be written, the usual way.

        Raises OSError where the disk is full.
        """
        descriptor, whole, done = self._descriptor, len(view) - len(view) % ALIGNMENT, 0
        if descriptor is None or not whole or offset % ALIGNMENT or not self._is_tried():
            return 0
        while done < whole and done % ALIGNMENT == 0:
            began = time.perf_counter()
            try:
                count = os.pwrite(descriptor, view[done:whole], offset + done)
            except OSError as error:
                if error.errno in _FULL:
                    raise
                # Not every file system that opens a file so also writes it so. If the disk is broken, the usual way says it.
                count = 0
            if not count:
                self._slow = TRIES
                break
            self._learn(count > QUICK_BYTES_PER_SECOND * (time.perf_counter() - began))
            done += count
        return done

    def read(self, buffer: memoryview, offset: int) -> int:
        """How many bytes came into the front of `buffer`; 0 where the usual way has to be taken."""
        descriptor, whole = self._descriptor, len(buffer) - len(buffer) % ALIGNMENT
        if descriptor is None or not whole or offset % ALIGNMENT or not self.is_quick:
            return 0
        try:
            return os.preadv(descriptor, [buffer[:whole]], offset)
        except OSError:
            return 0

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _is_tried(self) -> bool:
        if self._slow < TRIES:
            return True
        self._passed_over += 1
        return self._passed_over % ASKED_EVERY == 0

    def _learn(self, quick: bool) -> None:
        self._was_quick = self._was_quick or quick
        self._slow = 0 if quick else self._slow + 1


def _opened(descriptor: int) -> int | None:
    """None where the file system names no block device, or refuses. By the descriptor: under its name there may be another file by now."""
    try:
        device = os.fstat(descriptor).st_dev
        if (_BLOCK_DEVICES / f"{os.major(device)}:{os.minor(device)}").exists():
            return os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        pass
    return None
