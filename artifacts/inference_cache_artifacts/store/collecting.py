"""Makes room: first what nothing refers to, then trees nobody uses, the longest unused first, then what dead fetches could resume from."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from inference_cache_artifacts.store import disk, leftovers, litter, locking, removing, space
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.rounds import Collected, Round


@dataclass(frozen=True, slots=True)
class Limits:
    """When to make room, and how much; the waters are shares of the file system that are in use."""

    needed_bytes: int = 0
    high_water: float | None = 0.85
    """None: only `needed_bytes` counts."""
    low_water: float = 0.75
    partial_age_seconds: float = 24 * 3600.0
    """What a dead fetch left is kept so long, if there is room."""
    wait_seconds: float = 30.0
    """For those who publish; then without the lock."""


DEFAULT: Final = Limits()


def nobody(name: str) -> bool:
    """Who needs a tree has marked it, or is in `keep`."""
    return False


def collect(
    store: Store,
    *,
    keep: Collection[str],
    limits: Limits = DEFAULT,
    now: float | None = None,
    is_needed: Callable[[str], bool] = nobody,
) -> Collected:
    """Never what is in `keep`, marked as used, or being fetched. Does what it can; whether it is enough, `space.check` tells.

    `now` is in seconds by the file system's clock. `is_needed` is asked of a tree just before it is taken away, and once more while it
    can be put back: who found it in between is among those that it knows. Raises DiskFailed.
    """
    now = disk.clock(store.lock) if now is None else now
    # Without the lock it still is safe, and may cost a publisher on this node a second download.
    with locking.alone(store, limits.wait_seconds), disk.disk_errors(store.root):
        litter.sweep(store, now, locked=True)
        this = Round(store, frozenset(keep), goal_bytes(space.room(store.root), limits), now, Collected(), is_needed)
        leftovers.remove(this, limits.partial_age_seconds)
        removing.remove_blobs(this, removing.all_blobs(store))
        if not this.is_enough():
            removing.remove_trees(this)
        if not this.is_enough():
            leftovers.remove(this, 0)
            removing.remove_blobs(this, removing.all_blobs(store))
    return this.done


def goal_bytes(room: space.Room, limits: Limits) -> int:
    """How many bytes are to be free: above high water as many as low water leaves, and always those that are needed. Pure."""
    if limits.high_water is None or room.used_share <= limits.high_water:
        return limits.needed_bytes
    return max(limits.needed_bytes, int(room.total * (1 - limits.low_water)))
