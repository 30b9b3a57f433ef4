"""What `flying` asks of coalescing, and its form where nothing is shared."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, Protocol

from inference_cache_contract.epochs import Stamp
from inference_cache_sidecar.flights import Flight
from inference_cache_sidecar.outcome import Hit, Miss

_FORMAT: Final = b"flight 1"
"""Raised with the layout of records: replicas that write differently do not read each other."""
_LENGTH: Final = Struct("<Q")


@dataclass(frozen=True, slots=True)
class Trip:
    """One flight's errand."""

    key: bytes | None
    """Equal = one upstream call does; None = no other may have a part in it."""
    lead: Callable[[], Awaitable[None]]
    """Asks upstream and feeds the flight. Raises UpstreamAborted if upstream breaks off."""
    find: Callable[[], Awaitable[Hit | None]]
    """The stored answer after all. Never raises."""
    may_follow: Callable[[], Awaitable[bool]]
    """Whether this caller may have what another one's call brings. Never raises."""
    miss: Miss
    """Why upstream is asked."""


class Coalescer(Protocol):
    async def fly(self, flight: Flight, trip: Trip) -> None:
        """Decide and feed `flight`, by `trip.lead` or with what another replica's call brings. Raises what `trip.lead` raises."""
        ...


class LocalCoalescer:
    """For a sidecar by itself: `Flights` has joined equal queries already."""

    async def fly(self, flight: Flight, trip: Trip) -> None:
        await trip.lead()


def flight_key(digest: bytes, prompt: str, stamps: Sequence[Stamp]) -> bytes:
    """32 bytes; differs between prompts that only normalising makes equal, and between requests before and after a flush."""
    fields = [_FORMAT, digest, prompt.encode("utf-8", "surrogatepass")]
    for name, value in sorted(stamps):
        fields += [name.encode("utf-8", "surrogatepass"), str(value).encode()]
    return hashlib.sha256(b"".join(_LENGTH.pack(len(field)) + field for field in fields)).digest()
