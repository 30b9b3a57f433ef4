"""What the transfer needs of a place that has files; `sources/` implements it for S3 and for HTTP.

All methods may be called by any thread.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

Algorithm = Literal["sha256", "crc64nvme", "crc32c", "crc32"]


@dataclass(frozen=True, slots=True)
class Checksum:
    """Of the whole file; big-endian bytes."""

    algorithm: Algorithm
    value: bytes


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as its source tells of it now."""

    path: str
    """Within the artifact, parted by slashes."""
    size: int
    etag: str | None = None
    """As it goes into If-Match; None where the source gives none that is strong."""
    checksum: Checksum | None = None
    """The store's own, of the whole file; None where it keeps none, or only one of the parts it came in."""


class Body(Protocol):
    """A range of a file, as it comes in."""

    def readinto(self, buffer: memoryview) -> int:
        """Bytes written to the beginning of `buffer`; 0 when the range has ended or was cut off, which only the count can tell.

        Raises Transient.
        """
        ...


class Source(Protocol):
    @property
    def url(self) -> str:
        """For people: without query, user or password."""
        ...

    def listing(self) -> Sequence[Remote] | None:
        """Every file there is below the prefix, and nothing of `PREFIX0` beside `PREFIX`; None: the source cannot list.

        Without checksums, where these cost a request each. Raises Transient, Missing (nothing is there), Forbidden.
        """
        ...

    def head(self, path: str) -> Remote:
        """With the store's checksum. Raises Transient, Missing, Forbidden."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """A small file, whole. Raises Transient, Missing, Forbidden, BadManifest (it has more than `limit` bytes)."""
        ...

    def open(self, remote: Remote, start: int, end: int) -> AbstractContextManager[Body]:
        """Bytes `start` to `end` (exclusive) of the file, only if it still is the one with `remote.etag`.

        Leaving the context before the end gives up the connection. Raises Transient, Missing, Forbidden, Changed.
        """
        ...

    def close(self) -> None: ...
