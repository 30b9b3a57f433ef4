"""Makes room on the disk that the stores of all namespaces share, and takes away no tree that a pod of this node mounts.

Whatever the API server does not tell counts as used.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from inference_cache_artifacts.agent.kubernetes import ApiAway, Kubernetes
from inference_cache_artifacts.agent.live import Used, gone_holders, mounted_trees, resource_holders, together
from inference_cache_artifacts.agent.settings import Settings
from inference_cache_artifacts.agent.tokens import NAMESPACE
from inference_cache_artifacts.errors import ArtifactError
from inference_cache_artifacts.store import collecting, disk, space, trees, using
from inference_cache_artifacts.store.layout import Store

log = logging.getLogger(__name__)
_PODS: Final = "/api/v1/pods"
_RESOURCES: Final = "/apis/inferencecache.io/v1alpha1/inferencecaches"
_ANSWER_SECONDS: Final = 3.0
"""A tree that is taken away meanwhile is put back after that."""
_WAIT_SECONDS: Final = 2.0
"""For who publishes, where nobody is in need of room."""


class Keeper:
    def __init__(self, settings: Settings, kubernetes: Kubernetes, fetched: Callable[[], Used]) -> None:
        """`fetched`: trees that are on their way, and may be there without a mark for a moment."""
        self._settings = settings
        self._kubernetes = kubernetes
        self._fetched = fetched
        self._is_ending = threading.Event()
        self._asked: set[Future[Used | None]] = set()

    def end(self) -> None:
        """Nothing more is taken away: threads that are at it end soon."""
        self._is_ending.set()
        for asked in list(self._asked):
            asked.cancel()

    async def used(self) -> Used | None:
        """None: nobody knows, or the agent ends."""
        if self._is_ending.is_set():
            return None
        try:
            pods = await self._kubernetes.get(_PODS, fieldSelector=f"spec.nodeName={self._settings.node}")
        except ApiAway as error:
            log.warning("every tree is kept: %s", error)
            return None
        return together(mounted_trees(pods), self._fetched())

    async def look(self) -> None:
        """One round: marks of resources that are gone, then the disk. Raises ArtifactError."""
        await self._drop_marks()
        await asyncio.to_thread(self._collect_all, asyncio.get_running_loop())

    async def _drop_marks(self) -> None:
        # Marks first, resources after: what is marked meanwhile is not among those that go.
        marks = await asyncio.to_thread(self._marks)
        if not marks:
            return
        try:
            existing = resource_holders(await self._kubernetes.get(_RESOURCES))
        except ApiAway as error:
            log.warning("no mark is dropped: %s", error)
            return
        await asyncio.to_thread(_release, marks, existing)

    def _marks(self) -> dict[Store, list[tuple[str, str]]]:
        found = {}
        for store in stores(self._settings.root):
            with _going_on(store):
                found[store] = _marks_of(store)
        return found

    def _collect_all(self, loop: asyncio.AbstractEventLoop) -> None:
        given = self._settings
        limits = collecting.Limits(high_water=given.high_water, low_water=given.low_water, wait_seconds=_WAIT_SECONDS)
        for store in _longest_unused_first(stores(self._settings.root)):
            if self._is_ending.is_set():
                return
            with _going_on(store):
                self._collect(store, (), limits, loop)

    def make_room(self, store: Store, keep: Collection[str], needed_bytes: int, loop: asyncio.AbstractEventLoop) -> int:
        """By a thread: from `store` first, then from those of other namespaces; the bytes that were freed. Raises DiskFailed."""
        limits = collecting.Limits(needed_bytes=needed_bytes, high_water=None)
        freed = self._collect(store, keep, limits, loop)
        for other in _longest_unused_first(each for each in stores(self._settings.root) if each != store):
            if space.free_bytes(store.root) >= needed_bytes:
                break
            with _going_on(other):
                freed += self._collect(other, (), limits, loop)
        return freed

    def _collect(self, store: Store, keep: Collection[str], limits: collecting.Limits, loop: asyncio.AbstractEventLoop) -> int:
        """By a thread. Asked anew for each store and each tree: a pod that was admitted since may have found one. Raises DiskFailed."""

        def is_needed(name: str) -> bool:
            used = self._used_now(loop)
            return used is None or name in used.get(store.root.name, frozenset())

        done = collecting.collect(store, keep={*keep, *kept(store, self._used_now(loop))}, limits=limits, is_needed=is_needed)
        for name in done.trees:
            log.info("removed namespace=%s tree=%s to make room", store.root.name, name)
        return done.freed

    def _used_now(self, loop: asyncio.AbstractEventLoop) -> Used | None:
        """By a thread. None: nobody knows, or the agent ends."""
        if self._is_ending.is_set():
            return None
        asked = asyncio.run_coroutine_threadsafe(self.used(), loop)
        self._asked.add(asked)
        try:
            return asked.result(_ANSWER_SECONDS)
        except (TimeoutError, CancelledError):
            asked.cancel()
            return None
        finally:
            self._asked.discard(asked)


def stores(root: Path) -> list[Store]:
    """One for each namespace that has ever had a tree here. Raises DiskFailed."""
    with disk.disk_errors(root):
        return [Store(root / name) for name in disk.listed(root) if NAMESPACE.fullmatch(name) and Store(root / name).lock.exists()]


def kept(store: Store, used: Used | None) -> frozenset[str]:
    """What stays of a store, whatever room is needed. Raises DiskFailed."""
    return frozenset(trees.names(store)) if used is None else used.get(store.root.name, frozenset())


@contextmanager
def _going_on(store: Store) -> Iterator[None]:
    """One store's trouble is none of the others'."""
    try:
        with disk.disk_errors(store.root):
            yield
    except ArtifactError as error:
        log.warning("namespace=%s: %s: %s", store.root.name, error.reason, error)


def _marks_of(store: Store) -> list[tuple[str, str]]:
    """Tree and holder. Raises DiskFailed, OSError."""
    return [(name, holder) for name in disk.listed(store.used) for holder in using.users(store, name)]


def _release(marks: Mapping[Store, list[tuple[str, str]]], existing: frozenset[str]) -> None:
    for store, holders in marks.items():
        gone = gone_holders({holder for _, holder in holders}, store.root.name, existing)
        with _going_on(store):
            for name, holder in holders:
                if holder in gone:
                    using.release(store, name, holder)


def _longest_unused_first(found: Iterable[Store]) -> list[Store]:
    ages = {}
    for store in found:
        with _going_on(store):
            ages[store] = min((using.last_used(store, name) for name in trees.names(store)), default=0.0)
    return sorted(ages, key=ages.__getitem__)


async def keep_room(keeper: Keeper, seconds: float) -> None:
    """Until it is cancelled."""
    while True:
        try:
            await keeper.look()
        except ArtifactError as error:
            log.warning("room could not be made: %s: %s", error.reason, error)
        await asyncio.sleep(seconds)
