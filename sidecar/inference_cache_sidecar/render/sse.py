"""Server-sent events as bytes: cutting a stream into events, reading one, writing one.

The pipeline cuts what upstream sends; assemblers and live renditions read the events. All bytes that go in come out
again in order, so that a stream which is not understood can still be passed on as it is.
"""

import re
from collections.abc import Iterator
from typing import Final

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
DONE: Final = b"data: [DONE]\n\n"

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


class EventSplitter:
    """Cuts chunks into whole events; holds at most one unfinished event of `max_event_bytes`."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._held = bytearray()
        self._searched = 0
        self.overflowed = False
        """An event outgrew the limit: from then on chunks come out as they came in."""

    @property
    def remainder(self) -> bytes:
        """What has come after the last whole event; empty at the end of a well-formed stream."""
        return bytes(self._held)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes, each with its blank line; their bytes are upstream's own."""
        if self.overflowed:
            return [chunk] if chunk else []
        self._held += chunk
        events = self._cut()
        if len(self._held) > self._max:
            self.overflowed = True
            events.append(bytes(self._held))
            self._held.clear()
        return events

    def _cut(self) -> list[bytes]:
        held = self._held
        events = []
        start = 0
        for end in list(_event_ends(held, self._searched)):
            events.append(bytes(held[start:end]))
            start = end
        if start:
            del held[:start]
        # The blank line may itself be cut in three places: look at the last three bytes again.
        self._searched = max(0, len(held) - 3)
        return events


def _event_ends(held: bytearray, start: int) -> Iterator[int]:
    if b"\r" in held:
        yield from (match.end() for match in _BLANK_LINE.finditer(held, start))
        return
    while (found := held.find(b"\n\n", start)) >= 0:
        start = found + 2
        yield start


def data_of(event: bytes) -> bytes | None:
    """The event's data lines, joined; None for a comment or an event without data."""
    if event.startswith(b"data: ") and event.count(b"\n") == 2 and event.endswith(b"\n\n"):
        return event[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def ends_stream(event: bytes) -> bool:
    """Nothing is to come after it: official clients hang up here."""
    return event.startswith(_LAST)


_LAST: Final = (
    b"data: [DONE]",
    b"data:[DONE]",
    b"event: message_stop",
    b"event: response.completed",
    b"event: response.incomplete",
    b"event: response.failed",
)


def data_event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def named_event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
