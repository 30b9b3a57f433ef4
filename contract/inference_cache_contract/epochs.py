"""Names of epochs: what can be flushed, and what a stored entry must still match to be served.

The pipeline stamps an entry with the epochs read when its request began; readers compare by equality, so a late
write under an old epoch is never seen.
"""

from collections.abc import Iterable
from typing import Protocol

Stamp = tuple[str, int]
"""An epoch's name and its value when the entry's request began."""

CACHE = "cache"


def version_epoch(version: str) -> str:
    return f"version:{version}"


def adapter_epoch(model: str) -> str:
    return f"adapter:{model}"


def category_epoch(category: str) -> str:
    return f"category:{category}"


def tag_epoch(tag: str) -> str:
    return f"tag:{tag}"


class Epochs(Protocol):
    """The current value of every epoch; a name never raised stands at 0."""

    def current(self, name: str) -> int: ...

    def raise_epoch(self, name: str) -> int:
        """Make everything stamped with `name` so far unreachable; returns the new value, max(old + 1, now in ms)."""
        ...


def stamps(epochs: Epochs, names: Iterable[str]) -> tuple[Stamp, ...]:
    return tuple((name, epochs.current(name)) for name in names)


def reachable(epochs: Epochs, stamped: Iterable[Stamp]) -> bool:
    return all(epochs.current(name) == value for name, value in stamped)
