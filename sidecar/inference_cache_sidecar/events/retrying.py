"""How long to wait before the next try. Pure but for its dice."""

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Waits that double from `first_seconds` to `longest_seconds`, each shortened by up to a half so that replicas spread."""

    first_seconds: float = 0.25
    longest_seconds: float = 10.0
    _tries: int = 0

    def next_seconds(self) -> float:
        longest = min(self.longest_seconds, self.first_seconds * 2.0 ** min(self._tries, 32))
        self._tries += 1
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  no secret

    def reset(self) -> None:
        """It went well: the next failure waits shortly again."""
        self._tries = 0
