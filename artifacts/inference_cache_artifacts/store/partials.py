"""A file on its way: its bytes where they belong, and a journal of those that are there, so that a killed fetch goes on where it stopped.

A line of the journal follows its bytes, so whatever is killed, what the journal names was written. Only a crash of the whole machine can
lose bytes that it names; `Header.boot` shows one, and then the checksum of the whole decides.
"""

import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from inference_cache_artifacts.store.direct import Direct
from inference_cache_artifacts.store.disk import disk_errors
from inference_cache_artifacts.transfer.ranges import Ranges

DATA: Final = ".data"
JOURNAL: Final = ".journal"
_MODE: Final = 0o600
_COPIED_AT_ONCE: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """What a partial file is a part of. Another one makes what is there worthless."""

    size: int
    identity: str
    """What the bytes belong to: a checksum of the whole, or an ETag."""
    boot: str = ""
    """Of the kernel, where nothing but the journal vouches for the bytes; else empty."""


class Partial:
    """`write` may be called by several threads; everything else by one at a time."""

    def __init__(self, data: Path, header: Header) -> None:
        """Opens it, with what a former fetch of the same left there. Raises NoSpace, DiskFailed."""
        self.data = data
        self._writing = threading.Lock()
        self._journal_path = data.with_suffix(JOURNAL)
        with disk_errors(data), ExitStack() as opened:
            self.present = self._opened(header, opened)
            self._direct = Direct(self._descriptor)
            opened.callback(self._direct.close)
            self._close = opened.pop_all().close

    def write(self, view: memoryview, offset: int, *, read_soon: bool = False) -> None:
        """The bytes, and then the line that says so. What is to be `read_soon` stays in the page cache, but where the disk is quick.

        Raises NoSpace, DiskFailed.
        """
        length = len(view)
        with disk_errors(self.data):
            done = 0 if read_soon and not self._direct.is_quick else self._direct.write(view, offset)
            if done < length:
                self._write_cached(view[done:], offset + done)
            os.write(self._journal, b"%d %d\n" % (offset, offset + length))

    def read(self, buffer: memoryview, offset: int) -> int:
        """What was written before; the number of bytes."""
        with disk_errors(self.data):
            return self._direct.read(buffer, offset) or os.preadv(self._descriptor, [buffer], offset)

    def restart(self, header: Header) -> None:
        """Nothing is there any more."""
        with disk_errors(self.data):
            self._begin(header)

    def is_still(self, path: Path) -> bool:
        """Whether `path` names this very file, and not one that somebody else made of it. Raises DiskFailed."""
        with disk_errors(path):
            try:
                return os.path.samestat(os.fstat(self._descriptor), path.stat())
            except FileNotFoundError:
                return False

    def close(self) -> None:
        self._close()

    def _write_cached(self, view: memoryview, offset: int) -> None:
        done = 0
        # The kernel lets one at a time write a file, and the others spin until they may: half a second of CPU for a GiB.
        with self._writing:
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], offset + done)

    def _opened(self, header: Header, opened: ExitStack) -> Ranges:
        self.data.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        opened.callback(os.close, self._descriptor)
        self._journal = os.open(self._journal_path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        opened.callback(os.close, self._journal)
        present = _read_journal(self._journal_path.read_bytes(), header)
        if present is None or os.fstat(self._descriptor).st_size < max((end for _, end in present), default=0):
            self._begin(header)
            return Ranges()
        return present

    def _begin(self, header: Header) -> None:
        os.ftruncate(self._journal, 0)
        os.ftruncate(self._descriptor, 0)
        os.write(self._journal, json.dumps(asdict(header)).encode() + b"\n")
        self.present = Ranges()


@contextmanager
def opened(data: Path, header: Header) -> Iterator[Partial]:
    partial = Partial(data, header)
    try:
        yield partial
    finally:
        partial.close()


def copied(folder: Path, name: str) -> None:
    """Give the partial files of a tree, and their journals, new inodes: somebody may still hold the old ones open, and write."""
    for data in folder.glob(f"{name}*{DATA}"):
        journal, copy = data.with_suffix(JOURNAL), data.with_suffix(".copy")
        with disk_errors(data):
            try:
                # The journal first: what the other one writes from now on is in neither.
                _copy(journal, copy)
                _copy(data, copy)
            except OSError as error:
                # Half a copy is worth nothing. Full is another matter: the next one may have room.
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                for each in (journal, data, copy):
                    each.unlink(missing_ok=True)


def _copy(path: Path, copy: Path) -> None:
    """Raises OSError; then `path` is what it was."""
    with path.open("rb") as source, copy.open("wb") as target:
        position, size = 0, os.fstat(source.fileno()).st_size
        os.ftruncate(target.fileno(), size)
        while (found := _data(source.fileno(), position)) is not None:
            position, end = found
            while position < end:
                count = os.copy_file_range(source.fileno(), target.fileno(), min(end - position, _COPIED_AT_ONCE), position, position)
                if not count:
                    raise OSError(errno.ESTALE, "it became shorter meanwhile")
                position += count
    copy.replace(path)


def _data(descriptor: int, position: int) -> tuple[int, int] | None:
    """Where the next bytes that are no hole begin and end; None: there are no more."""
    try:
        start = os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return start, os.lseek(descriptor, start, os.SEEK_HOLE)


def _read_journal(text: bytes, header: Header) -> Ranges | None:
    """None where it is another file's journal, or none at all. A line that a crash cut in two is left out."""
    first, _, lines = text.partition(b"\n")
    try:
        known = Header(**json.loads(first))
    except (ValueError, TypeError):
        return None
    if known != header:
        return None
    ranges = Ranges()
    for line in lines.split(b"\n")[:-1]:
        start, _, end = line.partition(b" ")
        if start.isdigit() and end.isdigit() and int(end) <= header.size:
            ranges.add(int(start), int(end))
    return ranges
