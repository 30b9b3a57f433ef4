"""The stream in which every raise of an epoch is announced, with its value; what is known of it, and whether any of it is lost.

`epochs` calls, one call at a time. A raise stands in two places, its own key and this stream: who has read the stream believes
no key that is behind it. The stream is one line of history: where the last raise that was read here, or one that was announced
here, does not stand in it any more, the store has lost raises.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_contract.keyspace import name_digest
from inference_cache_sidecar.shared import scripts
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls

RAISES_KEPT: Final = 4096
BEGINNING: Final = b"0-0"
DIGITS: Final = 15
"""Most that an epoch's value has: milliseconds have 13."""


@dataclass(frozen=True, slots=True)
class Raise:
    place: bytes
    """Its id in the stream."""
    digest: bytes
    """Of the name."""
    value: int
    """0 where it cannot be read."""


@dataclass(frozen=True, slots=True)
class Read:
    server: bytes
    """The run id of the server that has the stream."""
    raises: tuple[Raise, ...]
    """Since the last one that was taken in; all that are kept, if that one is gone."""
    lost: bool
    """The store has gone back."""
    gap: bool
    """Raises may have come and gone unread: they were lost, or too many."""
    looked_for: int
    """How many that were announced from here."""

    @property
    def last(self) -> bytes:
        return self.raises[-1].place if self.raises else BEGINNING


class Raises:
    def __init__(self, calls: Calls, key: bytes) -> None:
        self._calls = calls
        self._key = key
        self.seen = BEGINNING
        """The last raise that was taken in."""
        self.announced = BEGINNING
        """The last one that was announced from here."""
        self._unread: list[bytes] = []
        """Announced from here, and not read back yet."""
        self._floors: OrderedDict[bytes, int] = OrderedDict()

    def floor(self, name: str) -> int:
        """The highest value that was announced lately, as far as it was read; 0 for none."""
        return self._floors.get(name_digest(name).encode(), 0)

    async def announce(self, raised: Sequence[tuple[str, int]]) -> None:
        """Names and their new values. Raises StoreError; they may have been announced all the same."""
        given = [part for name, value in raised for part in (name_digest(name), value)]
        self.announced = await self._script(scripts.ANNOUNCE, self.seen, RAISES_KEPT, *given)
        self._unread.append(self.announced)

    async def read(self) -> Read:
        """What is to be heeded; it is read again until `take_in` says that it was. Raises StoreError."""
        server, known, kept, flat = await self._script(scripts.READ, self.seen)
        raises = tuple(_raise(place, fields) for place, fields in zip(flat[::2], flat[1::2], strict=True))
        self._remember(raises)
        there = {each.place for each in raises}
        gone = [place for place in self._unread if place not in there]
        if not known:
            gone.append(self.seen)
        full = kept >= RAISES_KEPT
        # Where old ones make way for new ones, those before the first one that is left are not lost.
        first = ordinal(raises[0].place) if full and not known else (0, 0)
        lost = any(ordinal(place) >= first for place in gone)
        return Read(server, raises, lost, bool(gone) or (full and self.seen == BEGINNING), len(self._unread))

    def take_in(self, read: Read) -> None:
        if read.raises or read.lost:
            self.seen = read.last
        del self._unread[: read.looked_for]

    def _remember(self, raises: Sequence[Raise]) -> None:
        for each in raises:
            self._floors[each.digest] = max(each.value, self._floors.pop(each.digest, 0))
        while len(self._floors) > RAISES_KEPT:
            self._floors.popitem(last=False)

    async def _script(self, text: str, *arguments: bytes | str | int) -> Any:
        return await self._calls(lambda client: client.eval(text, 1, self._key, *arguments), SLOW_SECONDS, trial=True)


def ordinal(place: bytes) -> tuple[int, int]:
    """Ids of a stream in their order."""
    milliseconds, _, sequence = place.partition(b"-")
    return int(milliseconds or 0), int(sequence or 0)


def _raise(place: bytes, fields: Sequence[bytes]) -> Raise:
    given = dict(zip(fields[::2], fields[1::2], strict=False))
    return Raise(place, given.get(b"n", b""), readable(given.get(b"v", b"")) or 0)


def readable(value: bytes) -> int | None:
    """An epoch's value; None for junk, and for what the store could not count on from."""
    return int(value) if value.isdigit() and len(value) <= DIGITS else None
