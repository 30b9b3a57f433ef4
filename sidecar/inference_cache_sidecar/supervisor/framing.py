"""Where one answer ends on a relayed connection, so that a client that keeps its connection comes back to the cache. Changes no byte,
but that the head of a connection's last answer says that it is the last one: a client must not ask again while it is being hung up on.

It gives up for good on anything it does not understand: such a connection stays relayed until one side ends it.
"""

from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_MOST_HEAD: Final = 65_536
_NO_BODY: Final = frozenset((b"204", b"304"))


class AnswerFraming:
    """Told all bytes in order, `asked` those of the client and `answered` those of the server."""

    def __init__(self) -> None:
        self._lost = False
        self._asked = False
        self._head = b""
        self._left = 0
        """Of a body of known length, or of a chunk with its end."""
        self._chunked = False
        self._line = b""
        """Of a chunk's size, or of the trailer, so far."""
        self._trailer = False
        self._in_answer = False
        self._opened = False
        self.announced = False
        """The answer that was begun last says that the connection ends with it."""

    @property
    def between(self) -> bool:
        """All that was asked has been answered wholly."""
        return not (self._lost or self._asked or self._in_answer or self._head)

    def asked(self, data: bytes) -> None:
        """A request without a body in its answer, or one that is sent before the last was answered, is not followed."""
        if self._in_answer or self._head or data.startswith((b"HEAD ", b"CONNECT ")):
            self._lost = True
        self._asked = True

    def answered(self, data: bytes, last: bool = False) -> bytes:
        """What to pass on. `last`: the next answer is to be the last one; one whose head comes in pieces does not say so."""
        passed = []
        while data and not self._lost:
            begins = not (self._in_answer or self._head)
            rest = self._body(data) if self._in_answer else self._begin(data)
            taken = data[: len(data) - len(rest)]
            if last and begins and self._opened and not self._lost:
                taken, self.announced = _announcing(taken), True
            self._opened = False
            passed.append(taken)
            data = rest
        return b"".join([*passed, data])

    def _begin(self, data: bytes) -> bytes:
        self._head += data
        end = self._head.find(_HEAD_END)
        if end < 0:
            self._lost = len(self._head) > _MOST_HEAD
            return b""
        head, rest = self._head[:end], self._head[end + len(_HEAD_END) :]
        self._head = b""
        self._open(head)
        return rest

    def _open(self, head: bytes) -> None:
        line, *fields = head.split(b"\r\n")
        status = line.split(b" ")[1:2]
        if not line.startswith(b"HTTP/1.1 ") or not status or status[0] == b"101":
            self._lost = True
            return
        if status[0].startswith(b"1"):
            return
        told = {name.strip().lower(): value.strip().lower() for name, _, value in (field.partition(b":") for field in fields)}
        length = told.get(b"content-length")
        self._chunked = told.get(b"transfer-encoding") == b"chunked"
        self._in_answer = self._opened = True
        self._asked = False
        if self._chunked:
            return
        if status[0] in _NO_BODY:
            self._in_answer = False
        elif length is None or not length.isdigit():
            self._lost = True
        else:
            self._left = int(length)
            self._in_answer = self._left > 0

    def _body(self, data: bytes) -> bytes:
        if self._left:
            taken = min(self._left, len(data))
            self._left -= taken
            self._in_answer = self._chunked or self._left > 0
            return data[taken:]
        return self._size(data)

    def _size(self, data: bytes) -> bytes:
        """The next line between chunks."""
        end = data.find(b"\n")
        if end < 0:
            self._line += data
            self._lost = len(self._line) > _MOST_HEAD
            return b""
        line, self._line = (self._line + data[:end]).strip(), b""
        if self._trailer:
            self._trailer = self._in_answer = bool(line)
        else:
            self._chunk(line)
        return data[end + 1 :]

    def _chunk(self, line: bytes) -> None:
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            self._lost = True
            return
        self._trailer = size == 0
        self._left = size + 2 if size else 0


def _announcing(head: bytes) -> bytes:
    status, _, fields = head.partition(b"\r\n")
    return status + b"\r\nConnection: close\r\n" + fields
