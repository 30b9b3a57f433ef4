"""Events that every replica hears: one of them is to raise the epochs, and none of the others to rely on a guess that it did.

To tell two equal messages from one that two replicas heard is not possible: pub/sub numbers nothing. It is not needed either. What
counts is that an epoch is raised in the store after the event was heard, by whomever. So one replica (see `turn`) raises first; each
other reads what the store has when it hears of the event, waits, and reads it again: a name that has been raised meanwhile, as far as
this replica knows itself, needs no second raise. A raise from before the event was heard, as for an equal one shortly before, is in
the first reading already, and does not count. Where nobody raises, since the first replica is gone or did not hear it, all others do.

That a name is not in the store at all says nothing: another may have made it by asking for its value. It is raised then.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from inference_cache_contract.epochs import Epochs
from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.events.raising import BatchedRaises, RaiseAll

WAIT_SECONDS: Final = 0.25
"""For the first replica's raise, and for word of it."""
FIRST_SHARE: Final = 0.1
"""Of that."""
Stored = Callable[[Sequence[str]], Awaitable[Sequence[int | None]]]
"""The values of epochs in the store itself. Raises StoreError."""
_UNKNOWN: Final = 2**63
"""Above any value: nothing counts as raised since."""


class RaisedByOne:
    def __init__(
        self, epochs: Epochs, stored: Stored, raise_all: RaiseAll, is_first: Callable[[], bool], wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._epochs = epochs
        self._stored = stored
        self._raise_all = raise_all
        self._is_first = is_first
        self._wait_seconds = wait_seconds
        self._batched = BatchedRaises(self._raise_others)
        self._before: dict[str, int] = {}
        """Of names that wait for their batch: what the store had when last somebody here heard that they were to be raised."""

    async def raised(self, names: Sequence[str]) -> Collection[str]:
        """Those that this replica raised, when each has been raised since this call. Raises StoreError."""
        first = self._is_first()
        before = [None] * len(names) if first else await self._values(names)
        # The first, too, waits a little, until the others have read.
        await asyncio.sleep(self._wait_seconds * (FIRST_SHARE if first else random.uniform(1.0, 1.5)))  # noqa: S311  no secret
        for name, value in zip(names, before, strict=True):
            self._before[name] = max(self._before.get(name, 0), _UNKNOWN if value is None else value)
        return await self._batched.raised(names)

    async def close(self) -> None:
        """When nobody waits any more."""
        await self._batched.close()

    async def _raise_others(self, names: Sequence[str]) -> Collection[str]:
        """Less those that are raised already."""
        before = {name: self._before.pop(name) for name in names}
        doubtful = [name for name in names if before[name] != _UNKNOWN]
        after = dict(zip(doubtful, await self._values(doubtful), strict=True)) if doubtful else {}
        left = [name for name in names if not self._is_raised(name, before[name], after.get(name))]
        return await self._raise_all(left) if left else ()

    def _is_raised(self, name: str, old: int, new: int | None) -> bool:
        known = self._epochs.current(name)
        return new is not None and new > old and (known is None or known >= new)

    async def _values(self, names: Sequence[str]) -> Sequence[int | None]:
        try:
            return await self._stored(names)
        except StoreError:
            return [None] * len(names)
