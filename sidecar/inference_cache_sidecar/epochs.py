"""Epochs of one sidecar without a shared store.

The pipeline stamps entries with them, stores compare them at every read, the admin API raises them.
"""

import time
from collections.abc import Callable

_MAX_NAMES = 65_536


class MemoryEpochs:
    """Implements `Epochs`. Holds at most `max_names` values a family (what stands before the colon).

    Past that the older half of the family is forgotten, and every name of the family that is not held reads as the
    highest value forgotten: entries of other names are flushed with them, but no flushed entry ever comes back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time, max_names: int = _MAX_NAMES) -> None:
        self._clock = clock
        self._max_names = max_names
        self._families: dict[str, dict[str, int]] = {}
        self._floors: dict[str, int] = {}

    def current(self, name: str) -> int:
        family = name.partition(":")[0]
        values = self._families.get(family)
        if values is None:
            return 0
        value = values.get(name)
        return self._floors.get(family, 0) if value is None else value

    def raise_epoch(self, name: str) -> int:
        value = max(self.current(name) + 1, int(self._clock() * 1000))
        family = name.partition(":")[0]
        values = self._families.setdefault(family, {})
        # Taken out first, so that a name raised again counts as young.
        values.pop(name, None)
        values[name] = value
        if len(values) > self._max_names:
            self._forget_older_half(family, values)
        return value

    def _forget_older_half(self, family: str, values: dict[str, int]) -> None:
        for name in list(values)[: len(values) // 2]:
            self._floors[family] = max(self._floors.get(family, 0), values.pop(name))
