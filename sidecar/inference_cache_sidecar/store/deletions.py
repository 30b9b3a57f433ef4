"""Which entries were deleted lately, so that one that was just being read does not come back. Used by the tiered store."""

from collections import OrderedDict
from typing import Final

REMEMBERED: Final = 10_000


class Deletions:
    """Take a `mark` before reading, and ask `since` it before keeping what was read."""

    def __init__(self) -> None:
        self._numbers: OrderedDict[bytes, int] = OrderedDict()
        self._forgotten = 0
        self.mark = 0

    def add(self, digest: bytes) -> None:
        self.mark += 1
        self._numbers[digest] = self.mark
        self._numbers.move_to_end(digest)
        if len(self._numbers) > REMEMBERED:
            self._forgotten = self._numbers.popitem(last=False)[1]

    def since(self, mark: int, digest: bytes) -> bool:
        """Also where it cannot be said any more."""
        return mark < self._forgotten or self._numbers.get(digest, 0) > mark
