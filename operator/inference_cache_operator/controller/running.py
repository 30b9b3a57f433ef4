"""The leader's work: workers, resync and the sweep for orphans, started together and ended together."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry

from inference_cache_operator import errors
from inference_cache_operator.cluster import paths
from inference_cache_operator.controller.collaborators import Collaborators
from inference_cache_operator.controller.index import Key
from inference_cache_operator.controller.measuring import Measures
from inference_cache_operator.controller.queue import WorkQueue
from inference_cache_operator.controller.reconciling import Reconciler
from inference_cache_operator.controller.releasing import release_orphans

WORKERS: Final = 8
_log = logging.getLogger(__name__)


class Controller:
    """`namespaces` empty: all. `behind` is told how many resources the watch did not deliver though a list has them."""

    def __init__(
        self,
        collaborators: Collaborators,
        namespaces: tuple[str, ...] = (),
        behind: Callable[[int], None] = lambda _count: None,
        measures: Measures | None = None,
    ) -> None:
        self._with = collaborators
        self._namespaces = namespaces
        self._behind = behind
        self._measures = measures or Measures(CollectorRegistry())
        self._queue: WorkQueue[Key] = WorkQueue()
        self._reconciler = Reconciler(collaborators)

    async def lead(self, *beside: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Until it is cancelled, and `beside` with it, which needs to know all resources as well.

        Nothing begins before one whole list was read: an older resource that is not known yet would lose its pods to a younger one.
        """
        await self._listed()
        async with asyncio.TaskGroup() as group:
            for each in beside:
                group.create_task(each())
            group.create_task(self._resync(), name="resync")
            group.create_task(self._sweep(), name="orphans")
            for number in range(WORKERS):
                group.create_task(self._work(), name=f"worker-{number}")

    def heard(self, body: Mapping[str, Any], deleted: bool) -> None:
        """What the watch tells, also while another replica leads."""
        key = self._with.index.watched(body, deleted)
        if key is not None:
            self._queue.add(key)

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            with self._measures.seconds.time():
                outcome = await self._round(key)
            self._measures.rounds.labels(outcome).inc()

    async def _round(self, key: Key) -> str:
        try:
            self._queue.done(key, await self._reconciler.reconcile(key))
        except errors.Conflicting as error:
            _log.debug("%s/%s: written meanwhile: %s", *key, error)
            self._queue.failed(key)
            return "conflicting"
        except errors.OperatorError as error:
            _log.warning("%s/%s: tried again in %.1f s: %s", *key, self._queue.failed(key), error)
            return "failed"
        except Exception:
            _log.exception("%s/%s: tried again in %.1f s", *key, self._queue.failed(key))
            return "broken"
        except BaseException:
            # Cut off, as when the lease is lost: whoever leads next, perhaps this very process, must find the key again.
            self._queue.failed(key)
            raise
        return "done"

    async def _resync(self) -> None:
        """Lists what the watch should have told, so that a dead watch is seen and does no harm."""
        while True:
            try:
                await self._list()
            except errors.OperatorError as error:
                _log.warning("resources not listed: %s", error)
            await asyncio.sleep(self._with.pace.resync * random.uniform(0.9, 1.1))  # noqa: S311  spreads load

    async def _listed(self) -> None:
        while True:
            try:
                return await self._list()
            except errors.OperatorError as error:
                _log.warning("resources not listed yet: %s", error)
            await asyncio.sleep(self._with.pace.changing)

    async def _list(self) -> None:
        bodies = [body for namespace in self._scope() for body in await self._with.cluster.list(paths.caches(namespace))]
        unknown, gone = self._with.index.listed(bodies)
        self._behind(len(unknown) + len(gone))
        for key in gone:
            self._queue.add(key)
        for key in self._with.index.all_keys():
            self._queue.add(key, 0.0 if key in unknown else random.uniform(0, self._with.pace.resync / 2))  # noqa: S311  spreads load

    async def _sweep(self) -> None:
        """Pods whose resource went while nobody looked."""
        while True:
            try:
                await self._list()
                await release_orphans(self._with.cluster, self._scope(), self._with.index.resources())
            except errors.OperatorError as error:
                _log.warning("orphans not looked for: %s", error)
            await asyncio.sleep(self._with.pace.orphans)

    def _scope(self) -> tuple[str | None, ...]:
        return self._namespaces or (None,)
