"""Whose turn it is among the replicas: one acts first on what all hear. `heard` asks.

A lease in the store that may be wrong at times: where two hold themselves for the first, both act; where nobody is, the others act
after a wait.
"""

import asyncio
from typing import Final

from redis.asyncio import Redis

from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls

LEASE_SECONDS: Final = 3.0
_MS: Final = int(LEASE_SECONDS * 1000)
TAKE: Final = """
-- Take a lease, or hold it for longer.
-- KEYS[1] the lease. ARGV[1] who asks, ARGV[2] for how long, in ms.
-- Returns 1 if it is theirs, else 0.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


class Turn:
    def __init__(self, calls: Calls, keys: Keyspace, replica: str) -> None:
        """`replica` is unlike any other's."""
        self._calls = calls
        self._key = keys.events_turn()
        self._replica = replica
        self.mine = False

    async def run(self) -> None:
        """Ask again and again. Never ends by itself."""
        while True:
            try:
                self.mine = bool(await self._calls(self._take, SLOW_SECONDS, trial=True))
            except StoreError:
                self.mine = False
            await asyncio.sleep(LEASE_SECONDS / 3)

    async def _take(self, client: Redis) -> object:
        return await client.eval(TAKE, 1, self._key, self._replica, _MS)
