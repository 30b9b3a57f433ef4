"""Events that every replica hears: one of them is to raise the epochs, and none of the others to rely on a guess that it did.

To tell two equal messages from one that two replicas heard is not possible: pub/sub numbers nothing. It is not needed either. What
counts is that an epoch is raised in the store after the event was heard, by whomever. So a replica that hears of an event reads what
the store has, waits a moment, each its own, and reads it again: a name that has been raised meanwhile, as far as this replica knows
itself, needs no second raise. A raise from before the event was heard, as for an equal one shortly before, is in the first reading
already, and does not count. A replica that dies in between harms nobody, since the others find nothing raised.

That a name is not in the store at all says nothing: another may have made it by asking for its value. It is raised then.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final

from inference_cache_contract.epochs import Epochs
from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.events.flushing import Raise

SPREAD_SECONDS: Final = 0.05
"""Within which one replica comes first. The raise, and word of it, take some milliseconds."""
Stored = Callable[[Sequence[str]], Awaitable[Sequence[int | None]]]
"""The values of epochs in the store itself. Raises StoreError."""


class RaisedByOne:
    def __init__(self, epochs: Epochs, stored: Stored, raised: Raise, spread_seconds: float = SPREAD_SECONDS) -> None:
        self._epochs = epochs
        self._stored = stored
        self._raised = raised
        self._spread_seconds = spread_seconds

    async def raised(self, names: Iterable[str]) -> Collection[str]:
        """Those that this replica raised, when each has been raised since this call. Raises StoreError."""
        wanted = list(dict.fromkeys(names))
        before = await self._values(wanted)
        await asyncio.sleep(random.uniform(0.0, self._spread_seconds))  # noqa: S311  no secret
        after = await self._values(wanted)
        changes = zip(wanted, before, after, strict=True)
        return await self._raised([name for name, old, new in changes if not self._is_raised(name, old, new)])

    def _is_raised(self, name: str, old: int | None, new: int | None) -> bool:
        known = self._epochs.current(name)
        return old is not None and new is not None and new > old and (known is None or known >= new)

    async def _values(self, names: Sequence[str]) -> Sequence[int | None]:
        try:
            return await self._stored(names)
        except StoreError:
            return [None] * len(names)
