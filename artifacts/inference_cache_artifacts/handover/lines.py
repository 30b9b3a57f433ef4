"""A file of the agent's, from the socket to the disk by the kernel: only the first bytes come to this process. Used by `receiving`."""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Final
from urllib.parse import urlsplit

from inference_cache_artifacts.handover.client import Away
from inference_cache_artifacts.handover.contact import Contact
from inference_cache_artifacts.manifest import File

PIPE_BYTES: Final = 1 << 20
"""What a process without rights may ask for."""
_BUFFERED_BYTES: Final = 256 << 10
"""At least what `http.client` reads ahead while it reads a head."""
_WRITTEN_AT_ONCE: Final = 32 << 20
_CONNECT_SECONDS: Final = 3.0
_READ_SECONDS: Final = 20.0


class Unfit(Away):
    """The agent has answered, and with something that will not do the next time either."""


class Broken(Away):
    """It broke off amid the bytes."""


class Line:
    """A connection to the agent, of one thread, kept from file to file; but `break_off` is any thread's."""

    def __init__(self, contact: Contact) -> None:
        self._contact = contact
        address = urlsplit(contact.url)
        self._http = HTTPConnection(address.hostname or "", address.port, timeout=_CONNECT_SECONDS)
        self._broken = False
        self._pipe: tuple[int, int] | None = None

    def receive(self, path: str, file: File, sink: int, most: int, came: Callable[[int], None]) -> None:
        """All of `file` into the open file `sink`, told to `came` as it comes, at most `most` bytes at once.

        Raises Away, Broken, Unfit, BadRequest, and OSError of the disk; what is in `sink` then is worth nothing.
        """
        try:
            self._receive(path, file, sink, most, came)
        except BaseException:
            # Neither the connection nor the pipe is empty.
            self.close()
            raise

    def break_off(self) -> None:
        """For good; whoever waits for it goes on."""
        self._broken = True
        connection: socket.socket | None = self._http.sock
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._http.close()
        for end in self._pipe or ():
            os.close(end)
        self._pipe = None

    def _receive(self, path: str, file: File, sink: int, most: int, came: Callable[[int], None]) -> None:
        connection = self._connected()
        answer = self._asked(path, file)
        try:
            _check(answer, f"{self._contact.url}{path}", file)
            first = self._first(answer)
            _write(sink, first)
            came(len(first))
            self._rest(connection, sink, len(first), file.size, most, came)
        finally:
            answer.close()

    def _connected(self) -> socket.socket:
        try:
            if self._http.sock is None:
                self._http.connect()
        except OSError as error:
            raise self._away(error) from None
        if self._broken:
            raise Away("it was broken off")
        connection: socket.socket = self._http.sock
        connection.settimeout(_READ_SECONDS)
        return connection

    def _asked(self, path: str, file: File) -> HTTPResponse:
        own = {"Authorization": f"Bearer {self._contact.token()}", "Accept-Encoding": "identity", "User-Agent": "inference-cache"}
        try:
            self._http.request("GET", path, headers={**own, "If-Match": f'"{file.sha256}"'})
            return self._http.getresponse()
        except (OSError, HTTPException) as error:
            raise self._away(error) from None

    def _first(self, answer: HTTPResponse) -> bytes:
        """What came with the head; nothing of it is left in memory afterwards."""
        try:
            return answer.read1(_BUFFERED_BYTES)
        except (OSError, HTTPException) as error:
            raise self._away(error) from None

    def _rest(self, connection: socket.socket, sink: int, offset: int, size: int, most: int, came: Callable[[int], None]) -> None:
        # A blocking socket, whose patience is the kernel's: `splice` knows nothing of Python's.
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(_READ_SECONDS), 0))
        reader, writer = self._pipe = self._pipe or _pipe()
        written = 0
        while offset < size:
            count = self._pulled(connection.fileno(), writer, min(most, size - offset))
            _push(reader, sink, offset, count)
            offset += count
            if offset - written >= _WRITTEN_AT_ONCE:
                # Has the kernel begin to write it; what is dirty stays in memory. So the sync in the end has little left to do.
                os.posix_fadvise(sink, written, offset - written, os.POSIX_FADV_DONTNEED)
                written = offset
            came(count)

    def _pulled(self, connection: int, writer: int, most: int) -> int:
        try:
            count = os.splice(connection, writer, most)
        except OSError as error:
            raise Broken(f"the agent at {self._contact.url} broke off ({type(error).__name__})") from None
        if not count:
            raise Broken(f"the agent at {self._contact.url} broke off")
        return count

    def _away(self, error: Exception) -> Away:
        return Away(f"the agent at {self._contact.url} cannot be reached ({type(error).__name__})")


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    # A smaller one does too, where this user has many.
    with suppress(OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader, writer


def _push(reader: int, sink: int, offset: int, count: int) -> None:
    """Raises OSError."""
    while count:
        try:
            done = os.splice(reader, sink, count, offset_dst=offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A file system that takes nothing from a pipe.
            done = os.pwrite(sink, data := os.read(reader, count), offset)
            if done < len(data):
                raise OSError(errno.EIO, "the disk takes less than it is given") from None
        offset, count = offset + done, count - done


def _write(sink: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.pwrite(sink, rest, len(data) - len(rest)) :]


def _check(answer: HTTPResponse, where: str, file: File) -> None:
    if answer.status >= 500:
        raise Away(f"{where}: the agent answers {answer.status}")
    if answer.status != 200:
        raise Unfit(f"{where}: the agent answers {answer.status}")
    if answer.getheader("ETag") != f'"{file.sha256}"' or answer.length != file.size:
        raise Unfit(f"{where}: the agent sends another file than was asked for")
