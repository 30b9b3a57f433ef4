"""A Source in memory whose answers can be made to fail, for tests of the transfer."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from inference_cache_artifacts.errors import Changed, Missing, Transient
from inference_cache_artifacts.source import Checksum, Remote


@dataclass
class FakeBody:
    content: bytes
    cut: bool
    position: int = 0

    def readinto(self, buffer: memoryview) -> int:
        part = self.content[self.position : self.position + min(len(buffer), 65_536)]
        buffer[: len(part)] = part
        self.position += len(part)
        if not part and self.cut:
            raise Transient("the connection was cut")
        return len(part)


@dataclass
class FakeSource:
    files: dict[str, bytes]
    url: str = "s3://bucket/model"
    etags: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, Checksum] = field(default_factory=dict)
    cut_after: int | None = None
    """Bytes after which every answer breaks off."""
    cuts_with_error: bool = True
    failures: int = 0
    """So many of the next requests fail."""
    dead: bool = False
    lists: bool = True
    on_open: Callable[[str, int], None] = lambda path, start: None
    opened: list[tuple[str, int, int]] = field(default_factory=list)
    sent: int = 0
    closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def listing(self) -> Sequence[Remote] | None:
        self._may_fail()
        return [Remote(path, len(content), self._etag(path)) for path, content in self.files.items()] if self.lists else None

    def head(self, path: str) -> Remote:
        self._may_fail()
        if path not in self.files:
            raise Missing(f"{path}: {self.url} does not have it", path)
        return Remote(path, len(self.files[path]), self._etag(path), self.checksums.get(path))

    def read(self, path: str, limit: int) -> bytes:
        self.head(path)
        return self.files[path]

    @contextmanager
    def open(self, remote: Remote, start: int, end: int) -> Iterator[FakeBody]:
        self._may_fail()
        self.on_open(remote.path, start)
        if remote.etag not in {None, self._etag(remote.path)}:
            raise Changed(f"{remote.path}: another one", remote.path)
        with self._lock:
            self.opened.append((remote.path, start, end))
        end = end if self.cut_after is None else min(end, start + self.cut_after)
        body = FakeBody(self.files[remote.path][start:end], cut=self.cut_after is not None and self.cuts_with_error)
        try:
            yield body
        finally:
            with self._lock:
                self.sent += body.position

    def close(self) -> None:
        self.closed = True

    def _etag(self, path: str) -> str:
        return self.etags.get(path, f'"{path}-1"')

    def _may_fail(self) -> None:
        with self._lock:
            fails = self.dead or self.failures > 0
            self.failures = max(0, self.failures - 1)
        if fails:
            raise Transient("503")
