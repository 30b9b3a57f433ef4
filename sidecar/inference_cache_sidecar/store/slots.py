"""The memory store's directory: by slot, where an entry lies, when it may go, and whether it has a vector.

Twenty-odd bytes an entry in arrays; the digests themselves are read where they lie, in the packed entries.
"""

import math
from array import array
from sys import getsizeof
from typing import Final

import numpy as np

from inference_cache_contract import wire
from inference_cache_sidecar.index.chains import NONE, Chains
from inference_cache_sidecar.store.log import Log

NOWHERE: Final = 0xFFFFFFFFFFFFFFFF
"""The place of a slot that holds nothing."""
_NEVER = 0xFFFFFFFF


class Slots:
    def __init__(self, log: Log) -> None:
        self.places = array("Q")
        self._log = log
        self._links = array("I")
        self._lapses = array("I")
        """Unix second from which the entry is of no use even stale."""
        self._with_vector = bytearray()
        self._free = array("I")
        self._table = Chains(self._links, lambda slot: hash(self.digest(slot)))
        self._soonest = _NEVER
        self._lapsed: list[int] = []

    def __len__(self) -> int:
        return len(self._table)

    @property
    def high(self) -> int:
        """All slots are below it."""
        return len(self.places)

    @property
    def nbytes(self) -> int:
        columns = getsizeof(self.places) + getsizeof(self._links) + getsizeof(self._lapses) + getsizeof(self._with_vector)
        return columns + getsizeof(self._free) + self._table.nbytes

    def find(self, digest: bytes) -> int | None:
        slot = self._table.first(hash(digest))
        while slot != NONE:
            if self._log.part(self.places[slot], wire.DIGEST) == digest:
                return slot
            slot = self._links[slot]
        return None

    def digest(self, slot: int) -> bytes:
        return self._log.part(self.places[slot], wire.DIGEST)

    def scope(self, slot: int) -> bytes:
        return self._log.part(self.places[slot], wire.SCOPE)

    def has_vector(self, slot: int) -> bool:
        return bool(self._with_vector[slot])

    def take(self) -> int:
        """A slot that holds nothing yet: `fill` it before anything else is done."""
        if self._free:
            return self._free.pop()
        self.places.append(NOWHERE)
        self._links.append(NONE)
        self._lapses.append(_NEVER)
        self._with_vector.append(0)
        return self.high - 1

    def fill(self, slot: int, place: int, lapses: float, with_vector: bool) -> None:
        """The entry at `place` is findable from now on, through a slot just taken or one whose digest it shares."""
        fresh = self.places[slot] == NOWHERE
        self.places[slot] = place
        self._lapses[slot] = _whole_second(lapses)
        self._soonest = min(self._soonest, self._lapses[slot])
        self._with_vector[slot] = with_vector
        if fresh:
            self._table.insert(hash(self.digest(slot)), slot)

    def vacate(self, slot: int) -> None:
        """Called while the entry's bytes are still there."""
        self._table.remove(hash(self.digest(slot)), slot)
        self.places[slot] = NOWHERE
        self._lapses[slot] = _NEVER
        self._free.append(slot)

    def next_lapsed(self, now: float) -> int | None:
        """A slot whose entry is of no use any more; looks through all at most once a second."""
        if not self._lapsed and now >= self._soonest:
            self._look_through(now)
        while self._lapsed:
            slot = self._lapsed[-1]
            if self._lapses[slot] <= now:
                return slot
            self._lapsed.pop()
        return None

    def _look_through(self, now: float) -> None:
        lapses = np.frombuffer(self._lapses, dtype=np.uint32)
        gone = lapses <= now
        self._lapsed = np.flatnonzero(gone).tolist()
        self._soonest = int(lapses[~gone].min(initial=_NEVER))


def _whole_second(moment: float) -> int:
    return max(0, math.ceil(moment)) if moment < _NEVER else _NEVER
