"""Names of epochs: what can be flushed, and what a stored entry must still match to be served.

The pipeline stamps an entry with the epochs known when its request began; readers compare by equality, so a late
write under an old epoch is never seen.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

Stamp = tuple[str, int]
"""An epoch's name and its value when the entry's request began."""

CACHE = "cache"
_WHOLE_NUMBER: Final = re.compile(r"\s*[+-]?\d(?:_?\d){0,99}\s*")


def version_epoch(version: str) -> str:
    return f"version:{version}"


def adapter_epoch(model: str) -> str:
    return f"adapter:{model}"


def category_epoch(category: str) -> str:
    return f"category:{category}"


def tag_epoch(tag: str) -> str:
    return f"tag:{tag}"


def entity_epoch(join_key: str, value: str | int) -> str:
    """Of the features of whatever has this value of a join key. `1`, `"1"` and `"01"` are one: a feature server may take them so."""
    number = isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value)
    return f"entity:{join_key}={int(value) if number else value}"


class Epochs(Protocol):
    """The value of every epoch, as far as it is known here."""

    def current(self, name: str) -> int | None:
        """None: not known at present, so that nothing stamped with it may be served, nor counts as flushed."""
        ...

    async def stamps(self, names: Sequence[str]) -> tuple[Stamp, ...] | None:
        """The values to stamp an entry with, asked for where they are not known; None if nobody can say."""
        ...

    def raise_epoch(self, name: str) -> int:
        """Make everything stamped with `name` so far unreachable here at once, and elsewhere as soon as it can be told.

        Returns the new value, max(old + 1, now in ms).
        """
        ...

    async def raise_everywhere(self, name: str) -> int:
        """As `raise_epoch`, and return when no replica serves any more what was stamped before. Raises where that cannot be said."""
        ...


def reachable(epochs: Epochs, stamped: Iterable[Stamp]) -> bool:
    return all(epochs.current(name) == value for name, value in stamped)


def flushed(epochs: Epochs, stamped: Iterable[Stamp]) -> bool:
    """For certain; neither `reachable` nor this is what cannot be said at present."""
    return any(known is not None and known != value for name, value in stamped for known in (epochs.current(name),))
