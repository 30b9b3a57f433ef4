"""Ranges as they come in over urllib3, which is below boto3 too."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from inference_cache_artifacts.errors import Transient

RECEIVE_BYTES: Final = 512 << 10
"""What the kernel keeps of a connection: it is lost when this process is killed. Enough for 100 MB/s over 5 ms."""
MOST_AT_ONCE: Final = 1 << 20
"""Bytes."""


class EmptyBody:
    """Of a file, or a range, without bytes: asked of nobody."""

    def readinto(self, buffer: memoryview) -> int:
        del buffer
        return 0


class RangeBody:
    """The next `length` bytes of an answer, and not one more."""

    def __init__(self, answer: BaseHTTPResponse, length: int, where: str) -> None:
        self._answer = answer
        self._left = length
        self._where = where
        # urllib3's own readinto makes a bytes object of each piece and copies it; the answer below it reads into the buffer.
        inner = getattr(answer, "_fp", None)
        self._direct = inner if isinstance(inner, http.client.HTTPResponse) else None
        _bound(answer)

    def readinto(self, buffer: memoryview) -> int:
        """As `source.Body` promises."""
        wanted = min(len(buffer), self._left, MOST_AT_ONCE)
        if not wanted:
            return 0
        with transient(self._where):
            count = self._answer.readinto(buffer[:wanted]) if self._direct is None else _read_once(self._direct, buffer[:wanted])
        self._left -= count
        return count

    def whole(self, size: int) -> bytes:
        """All `size` bytes, and the end of it. Raises Transient where there is not that much."""
        buffer = bytearray(size)
        try:
            self._fill(memoryview(buffer))
        finally:
            self.close()
        return bytes(buffer)

    def rest(self) -> bytes:
        """What there is until the answer ends, or `length`."""
        buffer, pieces = memoryview(bytearray(MOST_AT_ONCE)), bytearray()
        while got := self.readinto(buffer):
            pieces += buffer[:got]
        return bytes(pieces)

    def skip(self, count: int) -> None:
        """Read and forget. Raises Transient where there is not that much."""
        buffer = memoryview(bytearray(min(count, MOST_AT_ONCE)))
        while count:
            piece = buffer[:count]
            self._fill(piece)
            count -= len(piece)

    def _fill(self, buffer: memoryview) -> None:
        while buffer:
            got = self.readinto(buffer)
            if not got:
                raise Transient(f"{self._where}: the answer was cut off")
            buffer = buffer[got:]

    def close(self) -> None:
        """Keeps the connection if nothing of the answer is left on it, and gives it up otherwise."""
        if self._left or (self._direct is not None and not self._direct.isclosed()):
            give_up(self._answer)
        else:
            self._answer.release_conn()


def _read_once(answer: http.client.HTTPResponse, buffer: memoryview) -> int:
    """What one read of the connection gives: `readinto` reads until the buffer is full, and if the rest never comes, all is lost."""
    if answer.chunked or answer.length is None or answer.fp is None:
        return answer.readinto(buffer)
    count = answer.fp.readinto1(buffer[: answer.length])
    answer.length -= count
    if not answer.length:
        # Nothing is left: this lets go of the connection.
        answer.readinto(bytearray(1))
    return count


def _bound(answer: BaseHTTPResponse) -> None:
    """Keep the kernel from holding megabytes that this process has not read yet."""
    connection = getattr(answer, "connection", None)
    if (found := getattr(connection, "sock", None)) is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)


def give_up(answer: BaseHTTPResponse) -> None:
    """Close its connection; the pool opens another."""
    answer.close()
    answer.release_conn()


@contextmanager
def transient(where: str) -> Iterator[None]:
    """Whatever happens to an open connection may go better with the next."""
    try:
        yield
    except TimeoutError:
        raise Transient(f"{where}: the source sends nothing any more") from None
    except (OSError, ssl.SSLError, http.client.HTTPException, HTTPError) as error:
        raise Transient(f"{where}: the connection broke ({type(error).__name__})") from None
