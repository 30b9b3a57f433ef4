"""What the parts of one collection share."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inference_cache_artifacts.store import lease_files, space
from inference_cache_artifacts.store.layout import Store


@dataclass(slots=True)
class Collected:
    """`freed` is in bytes."""

    freed: int = 0
    trees: list[str] = field(default_factory=list)
    blobs: int = 0
    partials: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    store: Store
    keep: frozenset[str]
    goal: int
    """Bytes that are to be free."""
    now: float
    done: Collected
    is_needed: Callable[[str], bool]
    """Whether somebody needs this tree now, whatever was known when the round began."""

    def is_enough(self) -> bool:
        return space.free_bytes(self.store.root) >= self.goal

    def is_fetched(self, name: str) -> bool:
        return lease_files.is_held(self.store.leases, name, self.now)


def own_bytes(path: Path) -> int:
    """What its removal frees: 0 where it has other names, or is gone. Raises OSError."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return 0
    return found.st_size if found.st_nlink == 1 else 0
