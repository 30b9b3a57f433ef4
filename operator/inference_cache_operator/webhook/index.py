"""The resources as the watch tells them: what is asked where reading them live fails, and whether the watch is alive.

kopf's handler fills it; `Freshness` compares it with lists now and then, since a watch can be dead without an error.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_operator.errors import ClusterError
from inference_cache_operator.resource import Resource, read_resource

logger = logging.getLogger(__name__)
_CATCH_UP_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Known:
    version: int
    """metadata.resourceVersion: grows with every write."""
    resource: Resource


class ResourceIndex:
    """By uid, so that a resource that was deleted and made anew is another one."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def put(self, body: dict[str, Any]) -> None:
        """An older state than the known one changes nothing."""
        known = _Known(_version(body), read_resource(body))
        present = self._known.get(known.resource.uid)
        if present is None or known.version >= present.version:
            self._known[known.resource.uid] = known

    def remove(self, uid: str) -> None:
        self._known.pop(uid, None)

    def within(self, namespace: str) -> list[Resource]:
        return [known.resource for known in self._known.values() if known.resource.namespace == namespace]

    def uids(self) -> frozenset[str]:
        return frozenset(self._known)

    def lacks(self, listed: Iterable[dict[str, Any]]) -> bool:
        """One of these is not known, or only an older state of it."""
        return any(self._version_of(body) < _version(body) for body in listed)

    def _version_of(self, body: dict[str, Any]) -> int:
        known = self._known.get(body["metadata"]["uid"])
        return -1 if known is None else known.version


class Freshness:
    """Whether the index follows the cluster. `list_all` raises ClusterError."""

    def __init__(
        self,
        index: ResourceIndex,
        list_all: Callable[[], Awaitable[Sequence[dict[str, Any]]]],
        stale_after: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._list_all = list_all
        self._stale_after = stale_after
        self._clock = clock
        self._behind_since: float | None = None
        self.synced = False
        """The index has held all that one list held."""

    @property
    def behind_seconds(self) -> float:
        return 0.0 if self._behind_since is None else self._clock() - self._behind_since

    def problems(self) -> list[str]:
        behind = self.behind_seconds
        return [f"the watch of InferenceCaches has missed a change for {behind:.0f} s"] if behind > self._stale_after else []

    async def run(self, every_seconds: float) -> None:
        """Until cancelled; while the API server does not answer, nothing is known and nothing is said."""
        while True:
            try:
                await self.compare()
            except ClusterError as error:
                logger.warning("freshness: resources cannot be listed: %s", error)
            await asyncio.sleep(every_seconds if self.synced else min(1.0, every_seconds))

    async def compare(self, catch_up_seconds: float = _CATCH_UP_SECONDS) -> None:
        """Raises ClusterError."""
        before = self._index.uids()
        listed = await self._list_all()
        # What was just written may still be on its way to us.
        for _ in range(round(catch_up_seconds / _LOOK_SECONDS)):
            if not self._index.lacks(listed):
                break
            await asyncio.sleep(_LOOK_SECONDS)
        self._forget(before - {body["metadata"]["uid"] for body in listed})
        if not self._index.lacks(listed):
            self._behind_since, self.synced = None, True
        elif self._behind_since is None:
            self._behind_since = self._clock()

    def _forget(self, deleted: Iterable[str]) -> None:
        # kopf does not tell of what was deleted while its watch was being opened anew.
        for uid in deleted:
            self._index.remove(uid)


def _version(body: dict[str, Any]) -> int:
    return int(body["metadata"]["resourceVersion"])
