"""The shared tier put together: made by `app` where the settings name a store, opened and closed as one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from inference_cache_contract.keyspace import Keyspace
from inference_cache_contract.spec import Spec
from inference_cache_sidecar.breaker import Breaker, BreakerSettings
from inference_cache_sidecar.errors import whereabouts
from inference_cache_sidecar.shared.address import RedisAddress
from inference_cache_sidecar.shared.calls import Calls
from inference_cache_sidecar.shared.changes import Changes
from inference_cache_sidecar.shared.entries import SharedEntries
from inference_cache_sidecar.shared.epochs import Agreement, SharedEpochs, new_replica_name
from inference_cache_sidecar.shared.hot import HotCalls
from inference_cache_sidecar.shared.purging import Purger
from inference_cache_sidecar.shared.sealing import Sealer
from inference_cache_sidecar.shared.servers import Servers
from inference_cache_sidecar.shared.values import Values
from inference_cache_sidecar.tasks import ended

FAILURES: Final = 3
_log = logging.getLogger(__name__)
RETRY_SECONDS: Final = 0.5
FIRST_CONFIRMATION_SECONDS: Final = 0.5
"""Waited for at the start, so that the first request may hit; a store that is down holds up nobody for longer."""


@dataclass(frozen=True, slots=True)
class SharedTier:
    calls: Calls
    hot: HotCalls
    keys: Keyspace
    sealer: Sealer
    values: Values
    entries: SharedEntries
    epochs: SharedEpochs
    changes: Changes
    purger: Purger
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def go_on(self, work: Coroutine[None, None, None]) -> None:
        """Run with the tier, and end with it."""
        task = asyncio.create_task(work)
        task.add_done_callback(_say_if_it_failed)
        self.tasks.append(task)

    async def confirmed_soon(self) -> None:
        """Once the epochs are confirmed and entries can be asked for, but no later than a moment from now."""
        try:
            async with asyncio.timeout(FIRST_CONFIRMATION_SECONDS):
                while not (self.epochs.confirmed and self.hot.linked):  # noqa: ASYNC110  only at the start
                    await asyncio.sleep(0.005)
        except TimeoutError:
            return


@asynccontextmanager
async def shared_tier(
    address: RedisAddress, cache: str, spec: Spec, encryption_keys: tuple[bytes, ...], clock: Callable[[], float]
) -> AsyncIterator[SharedTier]:
    """Does not wait for the store."""
    servers, keys, replica = Servers(address), Keyspace(cache), new_replica_name()
    deadline = spec.store.redis.deadline_seconds
    calls = Calls(servers, Breaker(BreakerSettings(FAILURES, RETRY_SECONDS)), deadline)
    hot = HotCalls(servers, deadline)
    calls.failing = lambda: hot.breaker_open
    sealer = Sealer(encryption_keys)
    values = Values(sealer)
    stale = max(spec.stale.while_revalidate_seconds, spec.stale.if_error_seconds)
    entries = SharedEntries(hot, keys, values, spec.model.version, stale, clock)
    epochs = SharedEpochs(calls, hot, Agreement(keys, replica, spec.invalidation.lease_seconds, longest_ttl(spec) + stale))
    changes, purger = Changes(calls, hot, keys, replica), Purger(calls, hot, keys, entries, epochs, clock)
    tier = SharedTier(calls, hot, keys, sealer, values, entries, epochs, changes, purger)
    tier.go_on(hot.begin())
    tier.go_on(epochs.run())
    try:
        yield tier
    finally:
        await ended(tier.tasks)
        await hot.close()
        await servers.close()


def _say_if_it_failed(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        _log.error("a part of the shared tier failed (%s): it goes on without", whereabouts(failure))


def longest_ttl(spec: Spec) -> float:
    """Seconds: the longest that any answer may be served."""
    categories = [category.ttl_seconds for category in spec.semantic.categories if category.ttl_seconds is not None]
    features = [spec.features.ttl_seconds, *(view.ttl_seconds for view in spec.features.views)]
    return max(spec.exact.ttl_seconds, spec.semantic.ttl_seconds, *categories, *features)
