"""Events from a Redis stream: a consumer group reads it, and an event is acknowledged only when it has been handled.

One group for each cache, so that any of its replicas handles an event for all. What could not be done is tried again until it can;
what a replica took and did not acknowledge, another takes over. So an event is handled at least once. A group that is gone (the
stream was deleted or evicted, the store emptied) is made again, and begins with the first event that is there.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from inference_cache_contract.spec_invalidation import RedisStream
from inference_cache_sidecar.errors import StoreError, StoreRefused, whereabouts
from inference_cache_sidecar.events.handling import EventHandler, Handled, Outcome
from inference_cache_sidecar.events.payloads import MAX_BYTES
from inference_cache_sidecar.events.retrying import Backoff
from inference_cache_sidecar.events.settling import settle
from inference_cache_sidecar.shared.calls import SLOW_SECONDS, Calls

SOURCE: Final = "redis-stream"
"""The label of its counts."""
BATCH: Final = 256
"""Events that are handled at once."""
BLOCK_SECONDS: Final = 1.0
DELIVERIES: Final = 5
"""Of an event that nobody acknowledges. So many replicas have died of it, or stood still over it: it is put aside."""
DEAD_LETTERS_KEPT: Final = 1000
TIDY_SECONDS: Final = 600.0
GONE_SECONDS: Final = 3600.0
"""A replica that has not read for so long, and left nothing behind, is struck off the group's list."""

TIDY: Final = """
-- Strike off the consumers of a group that are long gone and left nothing behind.
-- KEYS[1] the stream. ARGV[1] the group, ARGV[2] for how many ms they have given no sign.
-- Returns how many.
local gone = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local of = {}
  for place = 1, #consumer, 2 do of[consumer[place]] = consumer[place + 1] end
  if of.pending == 0 and of.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], of.name)
    gone = gone + 1
  end
end
return gone
"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    id: bytes
    fields: Mapping[bytes, bytes]

    @property
    def channel(self) -> str:
        return self.fields.get(b"channel", b"").decode("utf-8", "replace")

    @property
    def payload(self) -> bytes:
        return self.fields.get(b"payload", b"")


class StreamEvents:
    def __init__(self, calls: Calls, source: RedisStream, group: str, consumer: str, handler: EventHandler) -> None:
        """`consumer` is unlike any other replica's."""
        self._calls = calls
        self._source = source
        self._group = group
        self._consumer = consumer
        self._handler = handler
        self._counts = handler.counts
        self._reconnecting = Backoff()
        self._unsettled: list[Record] = []
        """Taken, and not acknowledged yet."""
        self._look_at = 0.0
        self._tidy_at = 0.0

    async def run(self) -> None:
        """Read until cancelled, whatever happens to the store. A task that `building` owns."""
        while True:
            try:
                await self._read()
            except Exception as error:
                self._counts.interruptions.add(SOURCE)
                seconds = self._reconnecting.next_seconds()
                told = str(error) if isinstance(error, StoreError) else whereabouts(error)
                _log.warning("events from the stream %s are interrupted (%s): next try in %.1f s", self._source.stream, told, seconds)
                await asyncio.sleep(seconds)

    async def _read(self) -> None:
        await self._calls(self._make_group, SLOW_SECONDS, trial=True)
        _log.info("events are read from the stream %s, as group %s", self._source.stream, self._group)
        resuming = True
        while True:
            if not self._unsettled and resuming:
                # What was given to this replica, but did not get here.
                self._unsettled.extend(await self._taken("0"))
                resuming = bool(self._unsettled)
            elif not self._unsettled:
                self._unsettled.extend(await self._abandoned() or await self._taken(">"))
            await settle(self._unsettled, self._handle, self._settled, self._keep)
            self._reconnecting.reset()

    async def _make_group(self, client: Redis) -> None:
        try:
            await client.xgroup_create(self._source.stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _taken(self, after: str) -> list[Record]:
        """New ones for ">", waited for; for an id what this replica has taken after it."""
        block, streams = int(BLOCK_SECONDS * 1000), {self._source.stream: after}
        found: Any = await self._calls(
            lambda client: client.xreadgroup(self._group, self._consumer, streams, count=BATCH, block=block),  # type: ignore[arg-type]
            BLOCK_SECONDS + SLOW_SECONDS,
        )
        return _records(found[0][1]) if found else []

    async def _abandoned(self) -> list[Record]:
        """What somebody took, and has not acknowledged for long; looked for now and then."""
        now = time.monotonic()
        if now < self._look_at:
            return []
        waiting = await self._waiting()
        if len(waiting) < BATCH:
            self._look_at = now + self._source.claim_seconds / 3
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_SECONDS
            await self._tidy()
        return await self._taken_over(waiting) if waiting else []

    async def _waiting(self) -> dict[bytes, int]:
        """How often each of those was delivered."""
        stream, idle = self._source.stream, int(self._source.claim_seconds * 1000)
        found: Any = await self._calls(lambda client: client.xpending_range(stream, self._group, "-", "+", BATCH, idle=idle), SLOW_SECONDS)
        return {each["message_id"]: each["times_delivered"] for each in found}

    async def _taken_over(self, waiting: Mapping[bytes, int]) -> list[Record]:
        """Less what another replica takes over at the same time, and what is put aside."""
        stream, idle = self._source.stream, int(self._source.claim_seconds * 1000)
        found: Any = await self._calls(lambda client: client.xclaim(stream, self._group, self._consumer, idle, list(waiting)), SLOW_SECONDS)
        records = _records(found)
        worn = [record for record in records if waiting[record.id] >= DELIVERIES]
        if worn:
            _log.error("%d events were taken %d times and never acknowledged: they are put aside", len(worn), DELIVERIES)
        await self._settled([(record, Handled(Outcome.BAD, "taken again and again, never acknowledged")) for record in worn])
        return [record for record in records if waiting[record.id] < DELIVERIES]

    async def _handle(self, record: Record) -> Handled:
        return await self._handler.handle(record.channel, record.payload)

    async def _settled(self, done: Sequence[tuple[Record, Handled]]) -> None:
        """Raises StoreError."""
        for record, handled in done:
            if handled.outcome is Outcome.BAD:
                await self._put_aside(record, handled.reason)
        ids = [record.id for record, _ in done]
        if ids:
            await self._calls(lambda client: client.xack(self._source.stream, self._group, *ids), SLOW_SECONDS)

    async def _put_aside(self, record: Record, reason: str) -> None:
        """Where the store refuses, the event is skipped all the same: flushes do not wait for it. Raises StoreUnavailable."""
        fields = {"channel": record.channel, "payload": record.payload[:MAX_BYTES], "reason": reason, "group": self._group, "id": record.id}
        try:
            await self._calls(
                lambda client: client.xadd(self._source.dead_letters, fields, maxlen=DEAD_LETTERS_KEPT, approximate=True),  # type: ignore[arg-type]
                SLOW_SECONDS,
            )
        except StoreRefused as error:
            _log.warning("a bad event (%s) could not be put aside: %s", record.id.decode(), error)
        else:
            self._counts.dead_letters.add(SOURCE)

    async def _keep(self, records: Sequence[Record]) -> None:
        """Let no other replica take them over while they wait here; does not count as another delivery."""
        ids = [record.id for record in records]
        with suppress(StoreError):
            await self._calls(
                lambda client: client.xclaim(self._source.stream, self._group, self._consumer, 0, ids, justid=True),  # type: ignore[arg-type]
                SLOW_SECONDS,
            )

    async def _tidy(self) -> None:
        arguments = (self._source.stream, self._group, int(GONE_SECONDS * 1000))
        await self._calls(lambda client: client.eval(TIDY, 1, *arguments), SLOW_SECONDS)


def _records(found: Sequence[tuple[bytes | None, Mapping[bytes, bytes] | None]]) -> list[Record]:
    """Less what was deleted from the stream meanwhile."""
    return [Record(number, fields) for number, fields in found if number is not None and fields is not None]
