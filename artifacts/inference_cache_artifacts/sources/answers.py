"""What the head of an HTTP answer says, for HTTP and S3. Pure."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from inference_cache_artifacts.errors import ArtifactError, BadRequest, Changed, Forbidden, Missing, Transient
from inference_cache_artifacts.source import Algorithm, Checksum

MOST_WAIT_SECONDS: Final = 60.0
MOST_SKEW_SECONDS: Final = 900.0
"""What S3 allows between its clock and that of who signs."""
LENGTHS: Final[Mapping[Algorithm, int]] = {"sha256": 32, "crc64nvme": 8, "crc32c": 4, "crc32": 4}
"""In the order of preference; bytes."""
_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")
_DIGEST: Final = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]+):", re.IGNORECASE)
_GOOGLE: Final = re.compile(r"(?:^|,)\s*crc32c=([A-Za-z0-9+/=]+)")


def failure(status: int, where: str, retry_after: str | None = None) -> ArtifactError | Transient:
    """What an answer that is no success means."""
    if status in {401, 403, 407}:
        return Forbidden(f"{where}: the source refuses it ({status})")
    if status in {404, 410}:
        return Missing(f"{where}: the source does not have it ({status})")
    if status in {412, 416}:
        return Changed(f"{where}: the source holds another object than before ({status})")
    if status in {408, 425, 429} or status >= 500:
        return Transient(f"{where}: the source answers {status}", retry_after_seconds(retry_after, datetime.now(UTC)))
    return BadRequest(f"{where}: the source answers {status}")


def retry_after_seconds(text: str | None, now: datetime) -> float | None:
    """Of Retry-After: seconds or a date; 0 to MOST_WAIT_SECONDS, None where it says nothing."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return min(float(text), MOST_WAIT_SECONDS)
    when = _date(text)
    return None if when is None else max(0.0, min((when - now).total_seconds(), MOST_WAIT_SECONDS))


def skew_seconds(date: str | None, now: datetime) -> float:
    """How far this machine's clock is from the source's `Date`; above 0 where it is ahead."""
    when = None if date is None else _date(date)
    return 0.0 if when is None else (now - when).total_seconds()


def content_range(text: str | None) -> tuple[int, int, int] | None:
    """Of Content-Range: start, end (exclusive) and the size of the whole; of `*`, as of a range that is not there, 0 and 0."""
    found = _RANGE.fullmatch((text or "").strip())
    if found is None:
        return None
    first, last, total = found.groups()
    return (0, 0, int(total)) if first is None else (int(first), int(last) + 1, int(total))


def strong(etag: str | None) -> str | None:
    """None for a weak one: it says nothing of the bytes."""
    return None if not etag or etag.startswith("W/") else etag


def same(one: str | None, other: str | None) -> bool:
    """Whether two etags may be of the same object; what is not known may be."""
    return one is None or other is None or one.strip('"') == other.strip('"')


def checksum_of(headers: Mapping[str, str]) -> Checksum | None:
    """The best that the headers tell of the whole file; names in lower case."""
    return best_checksum(dict(_told(headers)))


def best_checksum(encoded: Mapping[Algorithm, str]) -> Checksum | None:
    """Of base64 by algorithm; None where none is readable and of the whole."""
    for algorithm, length in LENGTHS.items():
        value = _decoded(encoded.get(algorithm))
        if len(value) == length:
            return Checksum(algorithm, value)
    return None


def _told(headers: Mapping[str, str]) -> Iterator[tuple[Algorithm, str]]:
    """The last of an algorithm counts."""
    if (google := _GOOGLE.search(headers.get("x-goog-hash", ""))) is not None:
        yield "crc32c", google[1]
    if headers.get("x-amz-checksum-type", "FULL_OBJECT").upper() == "FULL_OBJECT":
        yield from ((each, value) for each in LENGTHS if (value := headers.get(f"x-amz-checksum-{each}")) is not None)
    if (digest := _DIGEST.search(headers.get("repr-digest", ""))) is not None:
        yield "sha256", digest[1]


def _decoded(text: str | None) -> bytes:
    """Empty where it is no base64, as a checksum of parts, which ends in `-2`."""
    try:
        return base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)
