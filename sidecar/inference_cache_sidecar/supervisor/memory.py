"""The container's memory: how much there is, how much is in use, and what to do near the limit.

The kernel kills all processes of a container that passes its limit, this one too; so entries go first, then the worker.
"""

from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

HIGH_SHARE: Final = 0.85
"""Of the limit; from here on the worker is told to keep less."""
LAST_SHARE: Final = 0.97
"""From here on the worker is killed, before the kernel kills all."""
SHED_SECONDS: Final = 4.0
"""What keeping less may take to show."""
CALM_SHARE: Final = 0.7
"""Below it for a while, a worker that keeps less may keep as much as before again."""
CALM_SECONDS: Final = 60.0
MOST_CALM_SECONDS: Final = 3600.0
"""Each time that the memory runs short again, twice as long a calm is asked for, up to this."""
SHED_ROUNDS: Final = 2
REST_SECONDS: Final = 60.0
"""Between two workers that are replaced for their memory."""
_UNLIMITED: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the whole container, without files' pages that the kernel can drop."""

    used: int
    limit: int

    @property
    def share(self) -> float:
        return self.used / self.limit

    def has_room_for(self, more: int) -> bool:
        return self.used + more < LAST_SHARE * self.limit


def read_memory(root: Path) -> Memory | None:
    """Under `root`, by either version of control groups; None where there is no limit, or it cannot be read."""
    return _read(root, "memory.max", "memory.current", "inactive_file") or _read(
        root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    )


def _read(folder: Path, limit: str, usage: str, droppable: str) -> Memory | None:
    try:
        most = (folder / limit).read_text().strip()
        if most == "max" or int(most) >= _UNLIMITED:
            return None
        used = int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return Memory(max(0, used - int(stat.get(droppable, 0))), int(most))
    except (OSError, ValueError):
        return None


class Remedy(Enum):
    NONE = auto()
    SHED = auto()
    REPLACE = auto()
    KILL = auto()
    RESTORE = auto()


class MemoryWatch:
    """Decides from readings that come a few times a second."""

    def __init__(self) -> None:
        self._rounds = 0
        self._look_again = 0.0
        self._rest_until = 0.0
        self._calm_since: float | None = None
        self._calm_seconds = CALM_SECONDS
        self._keeps_less = False

    def remedy(self, memory: Memory, now: float) -> Remedy:
        """What to do now; the caller does it. It is told anew once the last remedy had time to show."""
        if memory.share >= CALM_SHARE:
            self._calm_since = None
        if memory.share >= LAST_SHARE and now >= self._rest_until:
            self._replaced(now)
            return Remedy.KILL
        if memory.share < HIGH_SHARE:
            self._rounds = 0
            return self._restored(memory, now)
        if now < self._look_again:
            return Remedy.NONE
        self._look_again = now + SHED_SECONDS
        if self._rounds < SHED_ROUNDS:
            self._rounds += 1
            self._keeps_less = True
            return Remedy.SHED
        if now < self._rest_until:
            return Remedy.NONE
        self._replaced(now)
        return Remedy.REPLACE

    def _restored(self, memory: Memory, now: float) -> Remedy:
        """What a worker keeps less for may have gone, such as another worker beside it."""
        if not self._keeps_less or memory.share >= CALM_SHARE:
            return Remedy.NONE
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since < self._calm_seconds:
            return Remedy.NONE
        self._keeps_less = False
        self._calm_seconds = min(2 * self._calm_seconds, MOST_CALM_SECONDS)
        return Remedy.RESTORE

    def _replaced(self, now: float) -> None:
        """The next one keeps as much as its spec allows."""
        self._rounds = 0
        self._keeps_less = False
        self._rest_until = now + REST_SECONDS
