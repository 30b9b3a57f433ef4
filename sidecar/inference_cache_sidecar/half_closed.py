"""Clients that shut their writing side after a request: still waiting for the answer, or gone?

TCP shows both alike until something is sent: only the kernel of a client that is gone answers with a reset. So an interim
`100 Continue`, which every HTTP/1.1 client skips, is sent where nothing of the answer has been. Used by `server`, which
keeps the connection open meanwhile.
"""

import asyncio
import socket
from collections.abc import Callable
from enum import Enum
from typing import Final

CHECK_SECONDS: Final = 0.05
SILENT_SECONDS: Final = 0.25
"""A client to whom nothing could be sent for so long counts as gone, so that upstream does not work for nobody."""
INTERIM: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

CAN_TELL: Final = hasattr(socket, "TCP_INFO")
"""Elsewhere than on Linux a client that shuts its writing side counts as gone."""
_CLOSE_WAIT: Final = 8


class Progress(Enum):
    """What the server is doing for the client."""

    UNASKED = "unasked"
    """All that was asked is answered, or the rest of the request can no longer come."""
    SILENT = "silent"
    """At work, with nothing sent since the client shut its side."""
    SENT = "sent"


class HalfClosedWatch:
    """Looks again and again until the answer is out or the client gone, then calls `end` once."""

    def __init__(self, transport: asyncio.Transport, progress: Callable[[], Progress], end: Callable[[], None]) -> None:
        self._transport = transport
        self._progress = progress
        self._end = end
        self._probed = False
        self._loop = asyncio.get_running_loop()
        self._silent_until = self._loop.time() + SILENT_SECONDS
        self._timer = self._loop.call_later(CHECK_SECONDS, self._look)

    def probe(self) -> None:
        """Only while nothing of an answer has been sent."""
        self._probed = True
        self._transport.write(INTERIM)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._over():
            self._end()
        else:
            self._timer = self._loop.call_later(CHECK_SECONDS, self._look)

    def _over(self) -> bool:
        progress = self._progress()
        if progress is Progress.UNASKED or _reset(self._transport):
            return True
        return progress is Progress.SILENT and not self._probed and self._loop.time() >= self._silent_until


def _reset(transport: asyncio.Transport) -> bool:
    if transport.is_closing():
        return True
    state = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return bool(state != _CLOSE_WAIT)
