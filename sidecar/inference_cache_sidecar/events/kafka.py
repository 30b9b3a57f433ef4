"""Events from Kafka: a consumer group reads the topics, and commits an event's offset only when it has been handled.

What could not be done is tried again until it can, before anything later is read; what was never committed comes again, to this
replica or another. So an event is handled at least once. aiokafka is imported when a consumer is made: it comes with an extra.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from inference_cache_sidecar.errors import CannotStart, whereabouts
from inference_cache_sidecar.events.handling import EventHandler, Handled, Outcome
from inference_cache_sidecar.events.kafka_beginning import beginning
from inference_cache_sidecar.events.kafka_log import calm_down
from inference_cache_sidecar.events.kafka_settings import KafkaSettings, connection_options
from inference_cache_sidecar.events.retrying import Backoff
from inference_cache_sidecar.events.settling import settle

SOURCE: Final = "kafka"
"""The label of its counts."""
BATCH: Final = 256
"""Records that are handled at once, and committed together."""
FETCH_BYTES: Final = 1024 * 1024
"""For each partition: bounds what waits in memory."""
PUT_ASIDE_SECONDS: Final = 5.0
STOP_SECONDS: Final = 2.0
"""For a farewell to the group; without one the others take over when the session has run out."""
MISSING_EXTRA: Final = "spec.invalidation.kafka needs the extra \"kafka\": pip install 'inference-cache[kafka]'"
_log = logging.getLogger(__name__)


class KafkaEvents:
    """Raises CannotStart, when it is made, if aiokafka is missing."""

    def __init__(self, settings: KafkaSettings, handler: EventHandler) -> None:
        self._settings = settings
        self._handler = handler
        self._counts = handler.counts
        self._aiokafka = _aiokafka()
        self._reconnecting = Backoff()
        calm_down()

    async def run(self) -> None:
        """Read until cancelled, whatever happens to the brokers. A task that `app` owns."""
        while True:
            try:
                await self._read()
            except Exception as error:
                self._counts.interruptions.add(SOURCE)
                seconds = self._reconnecting.next_seconds()
                _log.warning("events from Kafka are interrupted (%s): next try in %.1f s", self._told(error), seconds)
                await asyncio.sleep(seconds)

    async def _read(self) -> None:
        async with AsyncExitStack() as stack:
            options = connection_options(self._settings)
            dead_letters = None
            if self._settings.dead_letters is not None:
                dead_letters = await stack.enter_async_context(_started(self._aiokafka.AIOKafkaProducer(**options)))
            consumer = await stack.enter_async_context(_started(self._consumer(options)))
            _log.info("events are read from Kafka, as group %s", self._settings.group)
            while True:
                batch = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
                if batch:
                    await self._settle([record for records in batch.values() for record in records], dead_letters)
                    await self._commit(consumer, batch)
                    self._reconnecting.reset()

    def _consumer(self, options: Mapping[str, Any]) -> Any:
        consumer = self._aiokafka.AIOKafkaConsumer(
            **options,
            group_id=self._settings.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        since = self._settings.since_seconds
        listener = None if since is None else beginning(self._aiokafka, consumer, since)
        consumer.subscribe(pattern=_any_of(self._settings.topics), listener=listener)
        return consumer

    async def _settle(self, records: Sequence[Any], dead_letters: Any) -> None:
        """Returns when each record is applied or put aside, however long that takes."""

        async def settled(done: Sequence[tuple[Any, Handled]]) -> None:
            await asyncio.gather(*(self._put_aside(record, dead_letters) for record, handled in done if handled.outcome is Outcome.BAD))

        await settle(list(records), self._handle, settled)

    async def _handle(self, record: Any) -> Handled:
        return await self._handler.handle(self._settings.topics[record.topic], record.value or b"")

    async def _put_aside(self, record: Any, dead_letters: Any) -> None:
        """As it came, with where it came from. Where that fails the event is skipped all the same: flushes do not wait for it."""
        if dead_letters is None:
            return
        origin = f"{record.topic}/{record.partition}/{record.offset}"
        try:
            async with asyncio.timeout(PUT_ASIDE_SECONDS):
                headers = [("origin", origin.encode())]
                await dead_letters.send_and_wait(self._settings.dead_letters, record.value, record.key, headers=headers)
            self._counts.dead_letters.add(SOURCE)
        except (self._aiokafka.errors.KafkaError, TimeoutError) as error:
            _log.warning("a bad event (%s) could not be put aside: %s", origin, self._told(error))

    async def _commit(self, consumer: Any, batch: Mapping[Any, Sequence[Any]]) -> None:
        errors = self._aiokafka.errors
        # Of partitions that another replica has taken over meanwhile: that one reads these again.
        with suppress(errors.CommitFailedError, errors.IllegalStateError):
            await consumer.commit({partition: records[-1].offset + 1 for partition, records in batch.items()})

    def _told(self, error: Exception) -> str:
        """An error as the log may have it: Kafka's own and the network's say what a person can mend, others may quote a payload."""
        if isinstance(error, self._aiokafka.errors.KafkaError):
            return str(error)
        return f"{type(error).__name__}: {error}" if isinstance(error, OSError) else whereabouts(error)


@asynccontextmanager
async def _started(client: Any) -> AsyncIterator[Any]:
    """A consumer or producer that is stopped in the end, also where it did not come to start."""
    try:
        await client.start()
        yield client
    finally:
        await _to_its_end(asyncio.create_task(_stop(client)))


async def _to_its_end(task: asyncio.Task[None]) -> None:
    """Whoever ends this consumer may cancel it several times: half a farewell leaves connections behind."""
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    failure = task.exception()
    if cancelled is not None or failure is not None:
        raise cancelled or failure  # type: ignore[misc]  # one of them is there


async def _stop(client: Any) -> None:
    stopping = asyncio.create_task(client.stop())
    _, late = await asyncio.wait({stopping}, timeout=STOP_SECONDS)
    if late:
        # The broker hangs. Without connections what is still asked of it fails at once, and stopping comes to its end.
        await (client.client if hasattr(client, "client") else client._client).close()  # noqa: SLF001  a consumer has no other way
    # Whatever comes of it, since a cancellation on its way must not turn into that.
    await asyncio.gather(stopping, return_exceptions=True)


def _any_of(topics: Iterable[str]) -> str:
    """As a pattern, since a missing topic that is named outright keeps a consumer from starting."""
    return f"^(?:{'|'.join(map(re.escape, topics))})$"


def _aiokafka() -> ModuleType:
    try:
        return import_module("aiokafka")
    except ImportError as error:
        raise CannotStart(MISSING_EXTRA) from error
