"""One leader among the replicas, by a Lease. The composition root runs it around the controller.

kubernetes.aio.leaderelection does not serve: it ends at the first network error, has no deadlines, owns no Lease, and cannot tell a
leader that was frozen that it is one no more. `guard` can: `Cluster` asks it right before every write.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from inference_cache_operator import errors
from inference_cache_operator.cluster import paths
from inference_cache_operator.cluster.api import Cluster

_log = logging.getLogger(__name__)
_MARGIN: Final = 0.2
"""Share of the lease that a leader gives up, so that it has stopped writing before another may start."""


@dataclass(frozen=True, slots=True)
class Terms:
    """In seconds."""

    lease: int = 10
    """An older one may be taken over: a new leader comes at most this and `retry` after the last renewal."""
    renew: float = 2.0
    retry: float = 1.0
    deadline: float = 3.0
    """For one try."""


@dataclass(frozen=True, slots=True)
class Record:
    """Of the Lease as last seen; while it does not change, its holder is silent."""

    holder: str
    renewed: str
    transitions: int
    lease: float


def read_record(body: Mapping[str, Any]) -> Record:
    spec = body.get("spec") or {}
    return Record(
        holder=spec.get("holderIdentity") or "",
        renewed=spec.get("renewTime") or "",
        transitions=int(spec.get("leaseTransitions") or 0),
        lease=float(spec.get("leaseDurationSeconds") or 0),
    )


def may_claim(record: Record, me: str, silent_seconds: float) -> bool:
    return record.holder in ("", me) or silent_seconds >= record.lease


class Election:
    """`cluster` must be unguarded; `owners` are the Lease's ownerReferences."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        terms: Terms | None = None,
        owners: tuple[Mapping[str, Any], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._me = identity
        self._terms = terms or Terms()
        self._owners = owners
        self._clock = clock
        self._valid_until = float("-inf")
        self._observed: tuple[Record, float] | None = None

    @property
    def leading(self) -> bool:
        return self._clock() < self._valid_until

    def guard(self) -> None:
        """Raises NotLeading."""
        if not self.leading:
            raise errors.NotLeading(f"{self._me} does not hold the lease {self._namespace}/{self._name}")

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: `lead` runs while this replica leads, and is cancelled when it does no more."""
        while True:
            if not await self._try():
                await asyncio.sleep(self._terms.retry)
                continue
            _log.info("leading as %s", self._me)
            await self._lead(lead)
            _log.warning("not leading any more")

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Returns when the lease is lost; gives it back when cancelled."""
        work = asyncio.ensure_future(lead())
        renewing = asyncio.create_task(self._renew(), name="renewing")
        try:
            await asyncio.wait({work, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            work.cancel()
            renewing.cancel()
            await asyncio.gather(work, renewing, return_exceptions=True)
            await self._give_back()

    async def _renew(self) -> None:
        while self.leading:
            await asyncio.sleep(self._terms.renew)
            await self._try()

    async def _try(self) -> bool:
        """Whether this replica leads now; what fails is tried again by the caller."""
        try:
            async with asyncio.timeout(self._terms.deadline):
                return await self._claim()
        except (errors.ClusterError, TimeoutError) as error:
            _log.debug("lease: %s", error)
            return self.leading

    async def _claim(self) -> bool:
        started = self._clock()
        try:
            body = await self._cluster.get(paths.lease(self._namespace, self._name))
        except errors.NotThere:
            await self._cluster.create(paths.leases(self._namespace), self._body({}, 0))
            return self._won(started)
        record = read_record(body)
        if self._observed is None or self._observed[0] != record:
            self._observed = (record, started)
        if not may_claim(record, self._me, started - self._observed[1]):
            self._valid_until = float("-inf")
            return False
        transitions = record.transitions + (record.holder != self._me)
        await self._cluster.replace(paths.lease(self._namespace, self._name), self._body(body, transitions))
        return self._won(started)

    def _won(self, started: float) -> bool:
        self._valid_until = started + self._terms.lease * (1 - _MARGIN)
        return True

    async def _give_back(self) -> None:
        if not self.leading:
            return
        self._valid_until = float("-inf")
        try:
            body = await self._cluster.get(paths.lease(self._namespace, self._name))
            if read_record(body).holder == self._me:
                body["spec"] = {**body["spec"], "holderIdentity": ""}
                await self._cluster.replace(paths.lease(self._namespace, self._name), body)
        except errors.ClusterError as error:
            _log.debug("lease not given back: %s", error)

    def _body(self, present: Mapping[str, Any], transitions: int) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = present.get("spec") or {}
        acquired = before.get("acquireTime") if before.get("holderIdentity") == self._me else None
        metadata = dict(present.get("metadata") or {"name": self._name, "namespace": self._namespace})
        if self._owners:
            metadata["ownerReferences"] = list(self._owners)
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self._me,
                "leaseDurationSeconds": self._terms.lease,
                "acquireTime": acquired or now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }
