"""The key that turns credentials into tenants, agreed on by all replicas through the store: else no tenant would find on one what
another stored."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.errors import StoreError
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls
from inference_cache_sidecar.shared.sealing import Sealer, Unsealable

AGREE_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 0.5
KEY_BYTES: Final = 32


class AgreedKey:
    """`own` is proposed where the store holds none, also later, should it lose the key. `use` is told what was agreed on."""

    def __init__(self, calls: Calls, keys: Keyspace, sealer: Sealer, own: bytes, use: Callable[[bytes], None]) -> None:
        self._calls = calls
        self._place = keys.tenancy_key()
        self._sealer = sealer
        self._mine = own
        self._use = use

    async def run(self) -> None:
        """Agree, and see now and then that it still holds. Never ends by itself."""
        while True:
            try:
                agreed = await self._agree()
            except StoreError:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if agreed != self._mine:
                self._mine = agreed
                self._use(agreed)
            await asyncio.sleep(AGREE_SECONDS)

    async def _agree(self) -> bytes:
        """A key that cannot be read (other encryption keys, junk) is replaced. Raises StoreError."""
        sealed = self._sealer.seal(self._place, self._mine)
        await self._calls(lambda client: client.set(self._place, sealed, nx=True), SLOW_SECONDS)
        stored = await self._calls(lambda client: client.get(self._place), SLOW_SECONDS)
        try:
            key = self._sealer.unseal(self._place, stored) if isinstance(stored, bytes) else b""
        except Unsealable:
            key = b""
        if len(key) == KEY_BYTES:
            if isinstance(stored, bytes) and not self._sealer.is_current(stored):
                # Else it would be lost with the encryption key that is being rotated out.
                again = self._sealer.seal(self._place, key)
                await self._calls(lambda client: client.set(self._place, again), SLOW_SECONDS)
            return key
        await self._calls(lambda client: client.set(self._place, sealed), SLOW_SECONDS)
        return self._mine


def random_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)
