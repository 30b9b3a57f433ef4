"""Puts the sources of events together that the settings name, and runs them. `app` enters it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_contract.endpoints import REDIS_URL_VARIABLE
from inference_cache_contract.epochs import Epochs
from inference_cache_contract.spec_invalidation import Channels, Kafka, Topics
from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.events.flushing import EventFlushes
from inference_cache_sidecar.events.handling import EventCounts, EventHandler
from inference_cache_sidecar.events.heard import RaisedByOne
from inference_cache_sidecar.events.kafka import KafkaEvents
from inference_cache_sidecar.events.kafka_settings import KafkaSecurity, KafkaSettings, Protocol
from inference_cache_sidecar.events.payloads import KB_UPDATES, MODEL_UPDATES, USER_ACTIVITY
from inference_cache_sidecar.events.pubsub import PubsubEvents
from inference_cache_sidecar.events.raising import BatchedRaises, RaiseAll
from inference_cache_sidecar.events.redis_stream import StreamEvents
from inference_cache_sidecar.events.turn import Turn
from inference_cache_sidecar.flush import Flusher
from inference_cache_sidecar.settings import Secrets, Settings
from inference_cache_sidecar.shared.calls import SLOW_SECONDS
from inference_cache_sidecar.shared.epochs import new_replica_name
from inference_cache_sidecar.shared.link import Command
from inference_cache_sidecar.shared.tier import SharedTier
from inference_cache_sidecar.tasks import ended

GROUP: Final = "inference-cache"
_PROTOCOLS: Final[Mapping[tuple[bool, bool], Protocol]] = {
    (False, False): "PLAINTEXT",
    (False, True): "SSL",
    (True, False): "SASL_PLAINTEXT",
    (True, True): "SASL_SSL",
}
"""By whether we log in, and whether by TLS."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EventParts:
    """What of a sidecar events change."""

    epochs: Epochs
    shared: SharedTier | None
    flusher: Flusher
    ordered: Callable[[str], None]
    """Counts a flush by what it names."""


@asynccontextmanager
async def reading_events(settings: Settings, parts: EventParts) -> AsyncIterator["Events"]:
    """Raises CannotStart for a source that this installation cannot read."""
    events = Events(settings, parts)
    events.start()
    try:
        yield events
    finally:
        await events.close()


class Events:
    """Raises CannotStart as `reading_events`."""

    def __init__(self, settings: Settings, parts: EventParts) -> None:
        self.counts = EventCounts()
        self._settings = settings
        self._parts = parts
        self._batched = BatchedRaises(self._raise_all)
        self._heard: RaisedByOne | None = None
        self._sources = [*self._of_the_store(), *self._of_kafka()]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks.extend(map(asyncio.create_task, (run() for run in self._sources)))

    async def close(self) -> None:
        await ended(self._tasks)
        await self._batched.close()
        if self._heard is not None:
            await self._heard.close()

    def _of_the_store(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        shared, wanted = self._parts.shared, self._settings.spec.invalidation
        given = {"redisStream": wanted.redis_stream, "pubsub": wanted.pubsub}
        if shared is None:
            for name in (name for name, section in given.items() if section is not None):
                _log.warning("spec.invalidation.%s needs the shared store (%s): its events are not read", name, REDIS_URL_VARIABLE)
            return []
        sources: list[Callable[[], Coroutine[Any, Any, None]]] = []
        if wanted.redis_stream is not None:
            group = wanted.redis_stream.group or self._group
            handler = self._handler(self._batched.raised)
            sources.append(StreamEvents(shared.calls, wanted.redis_stream, group, new_replica_name(), handler).run)
        if wanted.pubsub is not None:
            turn = Turn(shared.calls, shared.keys, new_replica_name())
            self._heard = RaisedByOne(self._parts.epochs, _Stored(shared).values, self._raise_all, lambda: turn.mine)
            handler = self._handler(self._heard.raised)
            sources += [turn.run, PubsubEvents(shared.calls.servers, _channels(wanted.pubsub.channels), handler).run]
        return sources

    def _of_kafka(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        kafka = self._settings.spec.invalidation.kafka
        if kafka is None:
            return []
        alone = self._parts.shared is None
        group = kafka.group or (f"{self._group}:{new_replica_name()}" if alone else self._group)
        since = time.time() if alone and kafka.group is None else None
        security = _security(kafka, self._settings.secrets)
        settings = KafkaSettings(kafka.bootstrap_servers, group, _channels(kafka.topics), kafka.dead_letters, since, security)
        return [KafkaEvents(settings, self._handler(self._batched.raised)).run]

    @property
    def _group(self) -> str:
        return f"{GROUP}:{self._settings.cache_name}"

    def _handler(self, raised: RaiseAll) -> EventHandler:
        with_features = self._settings.spec.features.upstream is not None
        flushes = EventFlushes(raised, self._parts.flusher.purge_later, self._parts.ordered, with_features=with_features)
        return EventHandler(flushes.apply, self.counts)

    async def _raise_all(self, names: Sequence[str]) -> Sequence[str]:
        if self._parts.shared is not None:
            await self._parts.shared.epochs.raise_all_everywhere(names)
        else:
            for name in names:
                self._parts.epochs.raise_epoch(name)
        return names


class _Stored:
    """Reads epochs past what is known of them here."""

    def __init__(self, shared: SharedTier) -> None:
        self._shared = shared

    async def values(self, names: Sequence[str]) -> list[int | None]:
        """None for what is not there. Raises StoreError."""
        keys = [self._shared.keys.epoch(name) for name in names]
        commands: list[tuple[bytes, Command]] = [(key, (b"GET", key)) for key in keys]
        try:
            return [None if reply is None else int(reply) for reply in await self._shared.hot.run(commands, SLOW_SECONDS)]
        except ValueError:
            raise StoreUnavailable("the shared store has an epoch that is no number") from None


def _channels(names: Channels | Topics) -> Mapping[str, str]:
    """Channel by the name it has in a source."""
    return {names.model_updates: MODEL_UPDATES, names.user_activity: USER_ACTIVITY, names.kb_updates: KB_UPDATES}


def _security(kafka: Kafka, secrets: Secrets) -> KafkaSecurity:
    protocol = _PROTOCOLS[secrets.kafka_username is not None, kafka.tls]
    if protocol == "SASL_PLAINTEXT" and kafka.mechanism == "PLAIN":
        _log.warning("the password for Kafka goes over the network as it is: spec.invalidation.kafka.tls is false")
    return KafkaSecurity(
        protocol,
        kafka.ca_file,
        kafka.certificate_file,
        kafka.key_file,
        kafka.mechanism,
        secrets.kafka_username,
        secrets.kafka_password,
    )
