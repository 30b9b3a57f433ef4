"""The master that most sentinels name: `servers` asks here whenever it connects, and before epochs are confirmed.

One sentinel alone may be cut off with a former master, or not have heard of a failover yet: replicas that asked different ones would
write to different masters, each of them keeping from the others what it flushed.
"""

import asyncio
from typing import Any

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import RedisError

from inference_cache_sidecar.tasks import ended

Master = tuple[str, int]


class Sentinels(Sentinel):
    """Given addresses are a sentinel each; with a single one, such as a Service before all of them, its word is enough."""

    async def discover_master(self, service_name: str) -> Master:
        """As soon as most have named the same one. Raises MasterNotFoundError."""
        votes: dict[Master, int] = {}
        asking = [asyncio.create_task(self._named_by(sentinel, service_name)) for sentinel in self.sentinels]
        try:
            for answered in asyncio.as_completed(asking):
                master = await answered
                if master is not None:
                    votes[master] = votes.get(master, 0) + 1
                    if votes[master] > len(asking) / 2:
                        return master
        finally:
            await ended(asking)
        raise MasterNotFoundError("most sentinels do not name the same master")

    async def _named_by(self, sentinel: Any, service_name: str) -> Master | None:
        try:
            state = (await sentinel.sentinel_masters()).get(service_name)
        except (RedisError, OSError):
            return None
        return (state["ip"], int(state["port"])) if state and self.check_master_state(state, service_name) else None
