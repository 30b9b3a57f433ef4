"""The soak's clients: raw connections that ask, read, and hang up when they are told to. Cheap, since they share the sidecar's cores."""

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from traffic import Asked, Leaves

READ_BYTES = 1 << 16
HEAD_BYTES = 1 << 16
ANSWER_SECONDS = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MARK = re.compile(rb'"content":"([0-9a-f]{10})')
"""What a stand-in's answer begins with: equal only for equal requests."""


@dataclass
class Tally:
    """What has become of the requests so far."""

    done: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers that should not have been; the first of them."""
    marks: dict[bytes, int] = field(default_factory=dict)
    """Which hot question each answer was given to."""

    def blame(self, what: str) -> None:
        self.outcomes["wrong"] += 1
        if len(self.wrong) < 10:
            self.wrong.append(what)


@dataclass
class Client:
    """One connection at a time; opens another after it hung up or was hung up on."""

    host: str
    port: int
    tally: Tally
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def run(self, asked: Iterator[Asked], requests: int) -> None:
        """Ask until `requests` have been asked by all."""
        while self.tally.done < requests:
            one = next(asked)
            self.tally.done += 1
            self.tally.kinds[one.kind] += 1
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._ask(one)
            except TimeoutError:
                self.tally.blame(f"{one.kind}: no answer within {ANSWER_SECONDS:g} s")
                self.hang_up()
            except (OSError, EOFError, asyncio.LimitOverrunError) as error:
                self.hang_up()
                if one.may_break:
                    self.tally.outcomes["broken off"] += 1
                else:
                    self.tally.blame(f"{one.kind}: {type(error).__name__}")
        self.hang_up()

    def hang_up(self) -> None:
        """Every other time with a reset, as a client does whose process was killed; else with a FIN."""
        if self._writer is not None:
            if self.tally.done % 2:
                connection = self._writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
            self._reader = self._writer = None

    async def _ask(self, asked: Asked) -> None:
        reader, writer = await self._connection()
        writer.write(asked.wire)
        if asked.leaves in (Leaves.MID_REQUEST, Leaves.BEFORE_ANSWER):
            # Sent, and seen by the other side more often than not.
            await asyncio.sleep(0.002)
            self._left(asked)
            return
        head = await reader.readuntil(b"\r\n\r\n")
        if asked.leaves is Leaves.MID_STREAM:
            await reader.read(READ_BYTES)
            self._left(asked)
            return
        body = await _body(reader, head)
        self._judge(asked, head, body)
        if b"\r\nconnection: close" in head.lower():
            self.hang_up()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self.host, self.port, limit=HEAD_BYTES)
        return self._reader, self._writer

    def _left(self, asked: Asked) -> None:
        self.hang_up()
        self.tally.outcomes[f"left {asked.leaves.value}"] += 1

    def _judge(self, asked: Asked, head: bytes, body: bytes) -> None:
        status = int(head[9:12])
        if status not in asked.statuses:
            self.tally.blame(f"{asked.kind}: status {status}: {body[:200]!r}")
            return
        self.tally.outcomes[_outcome(head)] += 1
        if asked.question is not None:
            found = _MARK.search(body)
            if found is None:
                self.tally.blame(f"{asked.kind}: no answer in {body[:200]!r}")
            elif (other := self.tally.marks.setdefault(found[1], asked.question)) != asked.question:
                self.tally.blame(f"{asked.kind}: question {asked.question} was given the answer of question {other}")


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    length = _LENGTH.search(head)
    if length is not None:
        return await reader.readexactly(int(length[1]))
    body = b""
    while not body.endswith(b"0\r\n\r\n"):
        chunk = await reader.read(READ_BYTES)
        if not chunk:
            raise EOFError
        body += chunk
    return body


def _outcome(head: bytes) -> str:
    if b"; hit" in head:
        return "semantic" if b'"semantic' in head else "exact"
    if b"collapsed" in head:
        return "coalesced"
    return "miss" if b"fwd=miss" in head else "partial" if b"fwd=partial" in head else "passed"
