"""Which bytes of a file a request is answered with: Range, If-Range, If-Match and If-None-Match, as RFC 9110 has them. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """The status, and bytes `start` to `end` (exclusive) of `size`."""

    status: int
    start: int
    end: int
    size: int

    @property
    def content_range(self) -> str | None:
        if self.status == 416:
            return f"bytes */{self.size}"
        return f"bytes {self.start}-{self.end - 1}/{self.size}" if self.status == 206 else None


def part_of(headers: Mapping[str, str], etag: str, size: int) -> Part:
    """`etag` is strong, in quotes. A range that makes no sense, or several, are answered with the whole file."""
    if "If-Match" in headers and not _names(headers["If-Match"], etag):
        return Part(412, 0, 0, size)
    if "If-None-Match" in headers and _names(headers["If-None-Match"].replace("W/", ""), etag):
        return Part(304, 0, 0, size)
    asked = _RANGE.fullmatch(headers.get("Range", "").strip())
    if asked is None or headers.get("If-Range", etag).strip() != etag:
        return Part(200, 0, size, size)
    first, last, suffix = asked.groups()
    if first and last and int(last) < int(first):
        return Part(200, 0, size, size)
    start = int(first) if first else max(0, size - int(suffix))
    end = min(int(last) + 1, size) if last else size
    return Part(206, start, end, size) if start < end else Part(416, 0, 0, size)


def _names(listed: str, etag: str) -> bool:
    return listed.strip() == "*" or etag in (each.strip() for each in listed.split(","))
