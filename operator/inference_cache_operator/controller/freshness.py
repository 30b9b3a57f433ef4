"""Whether the watch follows the cluster, by what the lists find that it did not tell."""

import time
from collections.abc import Callable


class WatchAge:
    """`took` is called with every list; `problems` is the health check."""

    def __init__(self, stale_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stale_after = stale_after
        self._clock = clock
        self._behind_since: float | None = None

    def took(self, missed: int) -> None:
        """How many resources the last list had and the watch did not."""
        if not missed:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._clock()

    @property
    def behind_seconds(self) -> float:
        return 0.0 if self._behind_since is None else self._clock() - self._behind_since

    def problems(self) -> list[str]:
        behind = self.behind_seconds
        return [f"the watch has missed changes for {behind:.0f} s"] if behind > self._stale_after else []
