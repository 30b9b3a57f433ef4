"""Flush orders of the hot configuration: each executed once, by one of the sidecars that share a store, else by each for itself.

`following` says which orders there are, `/status` shows what became of them. An order has two halves, as every flush: the epoch is
raised and acknowledged, then the bytes are deleted. Who takes over from a replica that died goes on with the half that is missing.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from inference_cache_contract.configuration import FlushOrder
from inference_cache_contract.sidecar_status import FlushReport
from inference_cache_sidecar.configuration.order_records import Claim, OrderRecords
from inference_cache_sidecar.errors import StoreError, whereabouts
from inference_cache_sidecar.flush import Flusher, FlushRequest, Target, described
from inference_cache_sidecar.tasks import ended

FORGOTTEN_SECONDS: Final = 60.0
"""After an order is gone from the configuration."""
_TARGETS: Final[dict[str, Target]] = {"all": "all", "version": "version"}
Say = Callable[[], Awaitable[bool]]
"""Write down what is reported of an order, and hold it for longer; False if it is another replica's by now."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OrderTerms:
    """Seconds."""

    lease: float = 10.0
    """Until another replica takes over from one that died."""
    look: float = 1.0
    """Between looks at an order that another replica executes."""
    first_retry: float = 1.0
    longest_retry: float = 30.0

    def retry(self, attempts: int) -> float:
        return float(min(self.longest_retry, self.first_retry * 2 ** min(attempts - 1, 10)))


@dataclass(frozen=True, slots=True)
class OrderParts:
    """What of a sidecar a flush order touches."""

    flusher: Flusher
    records: OrderRecords | None
    """None where no store is shared."""
    flushed: Callable[[FlushRequest], None]
    """Told when an epoch was raised: what is in flight may not be joined any more."""
    deleted: Callable[[FlushRequest], int | None]
    """Entries deleted so far by the purge that runs."""


class FlushOrders:
    def __init__(self, parts: OrderParts, terms: OrderTerms, clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._terms = terms
        self._clock = clock
        self._reports: dict[str, FlushReport] = {}
        self._gone: dict[str, float] = {}
        """When an order was last seen to be no longer there."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._before: dict[str, int] = {}
        """Entries that others had deleted for an order when this sidecar took it over."""

    def heed(self, orders: Sequence[FlushOrder]) -> None:
        """These there are now. What was begun is ended, also if it is not among them any more."""
        now = self._clock()
        for name in self._reports.keys() - {order.id for order in orders}:
            self._gone.setdefault(name, now)
        for order in orders:
            self._gone.pop(order.id, None)
            if order.id not in self._reports:
                self._reports[order.id] = FlushReport(order.id, "running", acknowledged=False, keys=None, epoch=None)
                self._begin(order)

    @property
    def reports(self) -> Sequence[FlushReport]:
        self._forget()
        return tuple(self._reports.values())

    async def close(self) -> None:
        await ended(list(self._tasks.values()))

    def _forget(self) -> None:
        before = self._clock() - FORGOTTEN_SECONDS
        for name in [name for name, since in self._gone.items() if since <= before and name not in self._tasks]:
            del self._gone[name], self._reports[name]
            self._before.pop(name, None)

    def _begin(self, order: FlushOrder) -> None:
        task = asyncio.create_task(self._executed(order))
        self._tasks[order.id] = task
        task.add_done_callback(lambda done: self._ended(order, done))

    def _ended(self, order: FlushOrder, task: asyncio.Task[None]) -> None:
        del self._tasks[order.id]
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._report(replace(self._reports[order.id], state="failed"))
            _log.error("flush order %s failed: %s", order.id, whereabouts(failure))

    def _report(self, report: FlushReport) -> None:
        self._reports[report.id] = report

    async def _executed(self, order: FlushOrder) -> None:
        """Until it is done, by whomever."""
        attempts = 0
        while True:
            try:
                if await self._attended(order):
                    return
                attempts, wait = 0, self._terms.look
            except StoreError as error:
                attempts, wait = attempts + 1, self._terms.retry(attempts + 1)
                self._report(replace(self._reports[order.id], state="failed"))
                _log.warning("flush order %s: %s; tried again in %g s", order.id, error, wait)
            await asyncio.sleep(wait)

    async def _attended(self, order: FlushOrder) -> bool:
        """True if it is done. Raises StoreError."""
        if self._parts.records is None:
            await self._execute(order, _unsaid)
            return True
        claim = await self._parts.records.claim(order.id)
        if claim.report is not None:
            self._report(claim.report)
        if claim.token:
            await self._claimed(order, self._parts.records, claim)
        return self._reports[order.id].state == "done"

    async def _claimed(self, order: FlushOrder, records: OrderRecords, claim: Claim) -> None:
        """Execute it, and keep the others from it meanwhile. Raises StoreError."""

        async def say(hold_seconds: float = self._terms.lease, attempts: int = claim.attempts) -> bool:
            return await records.tell(self._reports[order.id], claim.token, hold_seconds, attempts)

        execution = asyncio.create_task(self._execute(order, say))
        try:
            while not execution.done():
                await asyncio.wait([execution], timeout=self._terms.lease / 4)
                if not execution.done() and not await self._renewed(order, say):
                    _log.warning("flush order %s: another replica has taken it over", order.id)
                    return
            execution.result()
            await say(0.0)
        except StoreError:
            attempts = claim.attempts + 1
            self._report(replace(self._reports[order.id], state="failed"))
            with suppress(StoreError):
                await say(self._terms.retry(attempts), attempts)
            raise
        finally:
            if not execution.done():
                await ended([execution])
                with suppress(StoreError):
                    await say(0.0)

    async def _renewed(self, order: FlushOrder, say: Say) -> bool:
        """False if it is another's by now. A store that fails for a moment takes nothing away."""
        report = self._reports[order.id]
        deleted = self._parts.deleted(_request(order)) if report.acknowledged else None
        if deleted is not None:
            self._report(replace(report, keys=self._before.get(order.id, 0) + deleted))
        try:
            return await say()
        except StoreError:
            return True

    async def _execute(self, order: FlushOrder, say: Say) -> None:
        """Both halves, or the second, if the first is done. Raises StoreError."""
        request, report = _request(order), self._reports[order.id]
        if not report.acknowledged:
            try:
                epoch, seconds = await self._parts.flusher.raise_everywhere(request)
            finally:
                # Also where the store failed: the flush is in force here.
                self._parts.flushed(request)
            report = replace(report, state="running", acknowledged=True, epoch=epoch)
            self._report(report)
            _log.info("flush order %s, of %s: acknowledged in %.0f ms, epoch %d", order.id, described(request), seconds * 1000, epoch)
            with suppress(StoreError):
                await say()
        self._before[order.id] = before = report.keys or 0
        count = before + await self._parts.flusher.purge(request)
        self._report(replace(report, state="done", keys=count))
        _log.info("flush order %s: done, %d entries deleted", order.id, count)


def _request(order: FlushOrder) -> FlushRequest:
    return FlushRequest(_TARGETS[order.target], order.value)


async def _unsaid() -> bool:
    """There is nobody to tell."""
    return True
