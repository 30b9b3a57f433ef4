"""What has become of each flush order, in the shared store: one hash an order, claimed by one replica at a time. `orders` calls.

The lease stands in the record itself: a script sees both at once, on a cluster too, and who has lost it can write no more.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from inference_cache_contract.keyspace import Keyspace
from inference_cache_contract.sidecar_status import FlushReport
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls

KEPT_SECONDS: Final = 7 * 24 * 3600
_STATES: Final = ("running", "done", "failed")
CLAIM: Final = """
-- Take an order that is not done and nobody works on, or look at it.
-- KEYS[1] its record. ARGV[1] a token unlike any other, ARGV[2] for how long, in ms, ARGV[3] how long the record is kept, in ms.
-- Returns 1 if it is theirs, else 0; then the record's fields.
local function now() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end
local held = redis.call('HMGET', KEYS[1], 'state', 'until')
local free = held[1] ~= 'done' and tonumber(held[2] or '0') <= now()
if free then
  redis.call('HSET', KEYS[1], 'state', 'running', 'token', ARGV[1], 'until', now() + ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return {free and 1 or 0, redis.call('HGETALL', KEYS[1])}
"""
WRITE: Final = """
-- Say how far an order is, and hold it for longer, or not at all.
-- KEYS[1] its record. ARGV[1] the token, ARGV[2] for how long, in ms, ARGV[3] how long the record is kept, in ms, ARGV[4...] fields and
-- values.
-- Returns 1, or 0 where it is another's by now.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'until', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """An order's record as it was found; `token` is empty where it is not ours."""

    report: FlushReport | None
    attempts: int
    """That failed."""
    token: str = ""


class OrderRecords:
    """Raises StoreError."""

    def __init__(self, calls: Calls, keys: Keyspace, lease_seconds: float) -> None:
        self._calls = calls
        self._keys = keys
        self.lease_seconds = lease_seconds

    async def claim(self, order: str) -> Claim:
        token = secrets.token_hex(16)
        given = (token, _ms(self.lease_seconds), _ms(KEPT_SECONDS))
        ours, fields = await self._script(CLAIM, order, given)
        told = dict(zip(fields[::2], fields[1::2], strict=True))
        return Claim(_report(order, told), _number(told.get(b"attempts")) or 0, token if ours else "")

    async def tell(self, report: FlushReport, token: str, hold_seconds: float, attempts: int = 0) -> bool:
        """False where the order is another replica's by now. Held by nobody after `hold_seconds`."""
        fields: list[str | int] = ["state", report.state, "acknowledged", int(report.acknowledged), "attempts", attempts]
        for name, value in (("keys", report.keys), ("epoch", report.epoch)):
            fields += [name, "" if value is None else value]
        return bool(await self._script(WRITE, report.id, (token, _ms(hold_seconds), _ms(KEPT_SECONDS), *fields)))

    async def _script(self, text: str, order: str, given: Sequence[str | int]) -> Any:
        key = self._keys.order(order)

        async def ask(client: Redis) -> Any:
            return await client.eval(text, 1, key, *given)

        return await self._calls(ask, SLOW_SECONDS)


def _report(order: str, told: dict[bytes, bytes]) -> FlushReport | None:
    state = told.get(b"state", b"").decode("ascii", "replace")
    if state not in _STATES:
        return None
    return FlushReport(
        order,
        state,  # type: ignore[arg-type]  # one of them, as was just seen
        told.get(b"acknowledged") == b"1",
        _number(told.get(b"keys")),
        _number(told.get(b"epoch")),
    )


def _number(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() else None


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
