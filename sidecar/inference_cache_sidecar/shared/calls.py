"""Every call to the shared store that is not a hot one: bounded in time and number, refused at once while the store is failing.

`store`, `epochs`, `coalescing`, `features` and `events` call; what redis-py raises becomes `StoreError` here, once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from inference_cache_sidecar.breaker import Breaker
from inference_cache_sidecar.errors import StoreError, StoreRefused, StoreUnavailable
from inference_cache_sidecar.shared.servers import Servers

T = TypeVar("T")
OUTSTANDING: Final = 256
"""Calls that may wait for the store at once: more would only wait longer."""
SLOW_SECONDS: Final = 1.0
"""Deadline of calls that no client waits for."""


@dataclass(slots=True)
class CallCounts:
    """Since start."""

    made: int = 0
    failed: int = 0
    late: int = 0
    """Of the failed ones: past their deadline."""
    refused: int = 0
    """At once: the breaker was open, or too many were waiting."""


class Calls:
    """`breaker` is shared by all that talk to the same store; `deadline_seconds` bounds what a client waits for."""

    def __init__(self, servers: Servers, breaker: Breaker, deadline_seconds: float) -> None:
        self.servers = servers
        self.breaker = breaker
        self.deadline_seconds = deadline_seconds
        self.counts = CallCounts()
        self.failing: Callable[[], bool] = lambda: False
        """Whether the same store is failing others that ask it."""
        self._outstanding = 0

    async def __call__(self, ask: Callable[[Redis], Awaitable[T]], seconds: float | None = None, *, trial: bool = False) -> T:
        """What `ask` answers, within `seconds` (else the deadline). Raises StoreError.

        A `trial` goes through an open breaker, and closes it if it succeeds: for background work only.
        """
        if not trial and (self.breaker.is_open or self.failing()):
            self.counts.refused += 1
            raise StoreUnavailable("the shared store is given a rest")
        if self._outstanding >= OUTSTANDING:
            self.counts.refused += 1
            raise StoreUnavailable("too many calls wait for the shared store")
        self._outstanding += 1
        self.counts.made += 1
        try:
            with translated():
                async with asyncio.timeout(self.deadline_seconds if seconds is None else seconds):
                    answer = await ask(self.servers.client)
        except StoreRefused:
            self.breaker.succeeded()
            raise
        except StoreUnavailable as error:
            if isinstance(error.__cause__, MaxConnectionsError):
                self.counts.refused += 1
                raise
            self.counts.failed += 1
            self.counts.late += isinstance(error.__cause__, TimeoutError)
            self.breaker.failed()
            raise
        finally:
            self._outstanding -= 1
            _heed_cancellation()
        self.breaker.succeeded()
        return answer


def _heed_cancellation() -> None:
    """redis-py sends under `asyncio.wait_for`, which in Python 3.11 loses a cancellation in its last step (python/cpython#86296)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@contextmanager
def translated() -> Iterator[None]:
    """redis-py's errors, and a deadline's, as ours. Their messages may name keys, so only their types are kept."""
    try:
        yield
    except StoreError:
        raise
    except TimeoutError as error:
        raise StoreUnavailable("the shared store did not answer in time") from error
    except (OutOfMemoryError, NoPermissionError, AuthenticationError) as error:
        raise StoreRefused(f"the shared store refused: {type(error).__name__}") from error
    except RedisConnectionError as error:
        raise StoreUnavailable(f"the shared store is not there: {type(error).__name__}") from error
    except ResponseError as error:
        raise StoreRefused(f"the shared store refused: {type(error).__name__}") from error
    except (RedisError, RedisClusterException, OSError) as error:
        raise StoreUnavailable(f"the shared store failed: {type(error).__name__}") from error
