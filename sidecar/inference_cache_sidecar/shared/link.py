"""One pipelined connection to one server of the shared store, for the calls that a client waits for most: GET and SET of entries.

redis-py takes a connection, a lock and a parser's pass for every call; here calls share writes and reads, and a reply costs a
third. Replies come in the order of the calls. A call past its deadline fails alone; its late reply is dropped.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, cast

import hiredis

from inference_cache_sidecar.errors import StoreUnavailable

GRACE_SECONDS: Final = 0.002
"""After a deadline the loop is let read once more: it may be the loop that was late, with the reply already there."""
Command = tuple[bytes | str | int | float, ...]


class Link(asyncio.Protocol):
    """Use `connect`. After `lost` it takes no more calls."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._deadlines: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._watcher: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.lost = False

    @property
    def outstanding(self) -> int:
        return len(self._waiting)

    def send(self, command: Command, seconds: float) -> "asyncio.Future[Any]":
        """The reply; a `hiredis.ReplyError` is one. Fails with StoreUnavailable after `seconds`, or when the link is lost."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.lost:
            future.set_exception(StoreUnavailable("the connection to the shared store is lost"))
            return future
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(_packed(command))
        self._waiting.append(future)
        deadline = self._loop.time() + seconds
        self._deadlines.append((deadline, future))
        if self._watcher is None or deadline < self._watcher.when():
            self._watch_at(deadline)
        return future

    async def send_all(self, commands: Sequence[Command], seconds: float) -> list[Any]:
        """All replies, under one deadline: as `send` for the last one, which comes when all others have."""
        futures: list[asyncio.Future[Any]] = [self._loop.create_future() for _ in commands[:-1]]
        if not self.lost and futures:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.extend(map(_packed, commands[:-1]))
            self._waiting.extend(futures)
        last = await self.send(commands[-1], seconds)
        return [*(future.result() for future in futures), last]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                future = self._waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(StoreUnavailable("the connection to the shared store is lost"))
                # Whoever asked may have gone: nobody need look at it.
                future.exception()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self.lost:
            self._transport.write(b"".join(unsent))

    def _watch(self) -> None:
        """One timer for all calls, which mostly have one deadline: it looks at the oldest that is still out."""
        deadlines, now = self._deadlines, self._loop.time()
        while deadlines and deadlines[0][1].done():
            deadlines.popleft()
        late = [future for deadline, future in deadlines if deadline <= now and not future.done()]
        if late:
            self._loop.call_later(GRACE_SECONDS, _give_up, late)
        left = [deadline for deadline, future in deadlines if deadline > now]
        self._watcher = None
        if left:
            self._watch_at(max(now + GRACE_SECONDS, min(left)))

    def _watch_at(self, when: float) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        self._watcher = self._loop.call_at(when, self._watch)


def _packed(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub takes one argument only
    return packed


def _give_up(late: "Sequence[asyncio.Future[Any]]") -> None:
    for future in late:
        if not future.done():
            error = StoreUnavailable("the shared store did not answer in time")
            error.__cause__ = TimeoutError()
            future.set_exception(error)
            future.exception()


async def connect(host: str, port: int, tls: ssl.SSLContext | None, greeting: Sequence[Command], seconds: float) -> Link:
    """A link on which the commands of `greeting` (AUTH, SELECT) have succeeded. Raises StoreUnavailable."""
    try:
        async with asyncio.timeout(seconds):
            _, link = await asyncio.get_running_loop().create_connection(Link, host, port, ssl=tls, server_hostname=host if tls else None)
    except (OSError, TimeoutError) as error:
        raise StoreUnavailable(f"the shared store is not there: {type(error).__name__}") from error
    try:
        replies = await asyncio.gather(*(link.send(command, seconds) for command in greeting), return_exceptions=True)
    except asyncio.CancelledError:
        link.close()
        raise
    if any(isinstance(reply, BaseException) for reply in replies):
        link.close()
        raise StoreUnavailable("the shared store does not let this sidecar in")
    return link
