"""The spec's section `invalidation`: how flushes reach every replica, and where events come from that order them.

A source is read from where its section stands in the spec, if only as `{}`; Kafka's user and password come by variables.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Final, Literal

from inference_cache_contract.errors import SpecProblem, shown
from inference_cache_contract.keyspace import DEAD_LETTERS, EVENTS
from inference_cache_contract.spec_fields import Holds, Says, camel
from inference_cache_contract.spec_kinds import BOOLEAN, DURATION, NAME, Kind, choice

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
LEAST_CLAIM_SECONDS: Final = 1.0
_SERVER: Final = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:,\[\]/@]+):[0-9]{1,5}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _servers(raw: object) -> str:
    """As Kafka's clients take them."""
    parts = raw.split(",") if isinstance(raw, str) else []
    if not parts or any(_SERVER.fullmatch(part.strip()) is None for part in parts):
        raise ValueError(f"{shown(raw)} is not HOST:PORT, or several separated by commas")
    return ",".join(part.strip() for part in parts)


def _topic(raw: object) -> str:
    if not isinstance(raw, str) or _TOPIC.fullmatch(raw) is None or raw in (".", ".."):
        raise ValueError(f"{shown(raw)} is not a topic's name: letters, digits, dots, hyphens and underscores")
    return raw


SERVERS: Final[Kind[str]] = Kind("text", "HOST:PORT, comma-separated", _servers)
TOPIC: Final[Kind[str]] = Kind("text", "", _topic)

_MODEL: Final = "where it is told that a model has changed"
_USER: Final = "where it is told that a user has acted"
_KNOWLEDGE: Final = "where it is told that what answers are based on has changed"


@dataclass(frozen=True, slots=True)
class Channels:
    """Of Redis pub/sub."""

    model_updates: Annotated[str, Says(NAME, _MODEL)] = "model_updates"
    user_activity: Annotated[str, Says(NAME, _USER)] = "user_activity"
    kb_updates: Annotated[str, Says(NAME, _KNOWLEDGE)] = "kb_updates"


@dataclass(frozen=True, slots=True)
class Topics:
    """Of Kafka."""

    model_updates: Annotated[str, Says(TOPIC, _MODEL)] = "model_updates"
    user_activity: Annotated[str, Says(TOPIC, _USER)] = "user_activity"
    kb_updates: Annotated[str, Says(TOPIC, _KNOWLEDGE)] = "kb_updates"


@dataclass(frozen=True, slots=True)
class RedisStream:
    stream: Annotated[str, Says(NAME, "the stream, in the shared store; its records have the fields channel and payload")] = EVENTS
    group: Annotated[str | None, Says(NAME, "the consumer group; absent: inference-cache: and the cache's name")] = None
    dead_letters: Annotated[str, Says(NAME, "the stream, of at most some 1000 records, that bad events go to")] = DEAD_LETTERS
    claim_seconds: Annotated[
        float, Says(DURATION, "how long an event may wait for the replica that took it before another takes it over", "claimAfter")
    ] = 30.0


@dataclass(frozen=True, slots=True)
class Pubsub:
    channels: Annotated[Channels, Holds("channels of the shared store that events are published in")] = Channels()


@dataclass(frozen=True, slots=True)
class Kafka:
    bootstrap_servers: Annotated[str, Says(SERVERS, "some of the brokers; required where kafka stands")]
    group: Annotated[
        str | None,
        Says(
            NAME,
            "the consumer group; absent: inference-cache: and the cache's name, or one of its own where no store is shared",
        ),
    ] = None
    topics: Annotated[Topics, Holds("topics that events come in")] = Topics()
    dead_letters: Annotated[str | None, Says(TOPIC, "the topic that bad events go to; absent: they are skipped")] = None
    tls: Annotated[bool, Says(BOOLEAN, "connect by TLS")] = False
    ca_file: Annotated[str | None, Says(NAME, "PEM file of the authorities to trust; absent: the system's")] = None
    certificate_file: Annotated[str | None, Says(NAME, "PEM file of the certificate to show to the brokers")] = None
    key_file: Annotated[str | None, Says(NAME, "PEM file of the certificate's key, where that does not hold it")] = None
    mechanism: Annotated[
        Mechanism, Says(choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "how to log in, where a user and password are given")
    ] = "PLAIN"


@dataclass(frozen=True, slots=True)
class Invalidation:
    lease_seconds: Annotated[
        float,
        Says(DURATION, "how long a replica serves without having heard of flushes; a flush waits no longer for one that is gone", "lease"),
    ] = 2.0
    redis_stream: Annotated[RedisStream | None, Holds("events from a Redis stream: none is lost")] = None
    pubsub: Annotated[Pubsub | None, Holds("events from Redis pub/sub: what is published while nobody listens is lost")] = None
    kafka: Annotated[Kafka | None, Holds("events from Kafka: none is lost")] = None


def contradictions(invalidation: Invalidation) -> Iterator[SpecProblem]:
    """Of fields that are right one by one."""
    stream, pubsub, kafka = invalidation.redis_stream, invalidation.pubsub, invalidation.kafka
    if stream is not None:
        yield from _of_the_stream(stream)
    if pubsub is not None:
        yield from _twins(pubsub.channels, "spec.invalidation.pubsub.channels")
    if kafka is not None:
        yield from _twins(kafka.topics, "spec.invalidation.kafka.topics")
        yield from _of_tls(kafka)


def _of_the_stream(stream: RedisStream) -> Iterator[SpecProblem]:
    path = "spec.invalidation.redisStream"
    if stream.claim_seconds < LEAST_CLAIM_SECONDS:
        yield SpecProblem(f"{path}.claimAfter", "is less than 1s: replicas would take events from each other")
    if stream.dead_letters == stream.stream:
        yield SpecProblem(f"{path}.deadLetters", "is the stream itself: bad events would be read again and again")


def _twins(names: Channels | Topics, path: str) -> Iterator[SpecProblem]:
    seen: dict[str, str] = {}
    for field in fields(names):
        name = getattr(names, field.name)
        if name in seen:
            yield SpecProblem(f"{path}.{camel(field.name)}", f"{shown(name)} is the name of {seen[name]} too")
        seen.setdefault(name, camel(field.name))


def _of_tls(kafka: Kafka) -> Iterator[SpecProblem]:
    path = "spec.invalidation.kafka"
    for attribute in ("ca_file", "certificate_file", "key_file"):
        if getattr(kafka, attribute) is not None and not kafka.tls:
            yield SpecProblem(f"{path}.{camel(attribute)}", "is of use with tls: true alone")
    if kafka.key_file is not None and kafka.certificate_file is None:
        yield SpecProblem(f"{path}.keyFile", "is of use with certificateFile alone")
