"""Epochs of one sidecar without a shared store.

The pipeline stamps entries with them, stores compare them at every read, the admin API raises them.
"""

import time
from collections.abc import Callable, Sequence

from inference_cache_contract.epochs import Stamp

_MAX_NAMES = 65_536


class MemoryEpochs:
    """Implements `Epochs`. Holds at most `max_names` values a family (what stands before the colon).

    Past that the older half of the family is forgotten, and every name of the family that is not held reads as the
    highest value forgotten: entries of other names are flushed with them, but no flushed entry ever comes back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time, max_names: int = _MAX_NAMES) -> None:
        self._clock = clock
        self._max_names = max_names
        self._values: dict[str, int] = {}
        self._held: dict[str, int] = {}
        """How many names of each family have a value."""
        self._floors: dict[str, int] = {}

    def current(self, name: str) -> int:
        value = self._values.get(name)
        if value is not None:
            return value
        return self._floors.get(_family(name), 0) if self._floors else 0

    def raise_epoch(self, name: str) -> int:
        value = max(self.current(name) + 1, int(self._clock() * 1000))
        family = _family(name)
        # Taken out first, so that a name raised again counts as young.
        known = self._values.pop(name, None)
        self._values[name] = value
        self._held[family] = self._held.get(family, 0) + (known is None)
        if self._held[family] > self._max_names:
            self._forget_older_half(family)
        return value

    async def stamps(self, names: Sequence[str]) -> tuple[Stamp, ...]:
        return tuple((name, self.current(name)) for name in names)

    async def raise_everywhere(self, name: str) -> int:
        return self.raise_epoch(name)

    def _forget_older_half(self, family: str) -> None:
        names = [name for name in self._values if _family(name) == family]
        for name in names[: len(names) // 2]:
            self._floors[family] = max(self._floors.get(family, 0), self._values.pop(name))
        self._held[family] -= len(names) // 2


def _family(name: str) -> str:
    return name.partition(":")[0]
