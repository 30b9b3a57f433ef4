"""Events from a real Kafka: every one is carried out, at least once, whatever breaks meanwhile."""

import asyncio
import itertools
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from tests.services.event_cache import SECONDS, Cache, until
from tests.services.kafka_server import KafkaServer, kafka_server, prepared
from tests.services.redis_tls import write_certificates

from inference_cache_sidecar.errors import CannotStart
from inference_cache_sidecar.events.handling import Outcome
from inference_cache_sidecar.events.kafka import KafkaEvents
from inference_cache_sidecar.events.kafka_settings import KafkaSecurity, KafkaSettings, Mechanism, connection_options

pytestmark = pytest.mark.services
USER, PASSWORD = "cache", "not-for-logs"


OPEN = KafkaSecurity()
_numbers = itertools.count()


@pytest.fixture
def settings(kafka_bootstrap: str) -> KafkaSettings:
    """Topics and a group that no other test has."""
    return settings_for(kafka_bootstrap)


def settings_for(bootstrap: str, security: KafkaSecurity = OPEN) -> KafkaSettings:
    mark = f"test-{next(_numbers)}"
    topics = {f"{mark}.{channel}": channel for channel in ("model_updates", "user_activity", "kb_updates")}
    return KafkaSettings(bootstrap, mark, topics, f"{mark}.bad", security=security, refresh_seconds=0.5)


@asynccontextmanager
async def reading(settings: KafkaSettings, cache: Cache) -> AsyncIterator[None]:
    task = asyncio.create_task(KafkaEvents(settings, cache.handler).run())
    try:
        yield
    finally:
        assert not task.done(), "a consumer never ends by itself"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_events_of_every_channel_are_carried_out(settings: KafkaSettings) -> None:
    cache = Cache()
    await send(settings, "model_updates", {"version": "v1"}, {"adapter": "sql"})
    await send(settings, "user_activity", {"user_id": 7})
    await send(settings, "kb_updates", {"tags": ["a", "b"]}, {"all": True})
    async with reading(settings, cache):
        await until(lambda: len(cache.flushed) == 6)
    assert sorted(cache.flushed) == ["adapter sql", "all", "tag a", "tag b", "tag user:7", "version v1"]
    assert cache.forgotten == ["user_id 7"]
    assert cache.outcomes(Outcome.APPLIED) == 5


async def test_a_bad_event_is_put_aside_and_those_behind_it_are_carried_out(settings: KafkaSettings) -> None:
    cache = Cache()
    await send(settings, "model_updates", {"version": 5}, {"version": "v1"})
    async with reading(settings, cache):
        await until(lambda: cache.flushed == ["version v1"])
        record = await first_record(settings.bootstrap, f"{settings.group}.bad")
    assert record.value == b'{"version": 5}'
    assert dict(record.headers) == {"origin": f"{settings.group}.model_updates/0/0".encode()}
    assert (cache.outcomes(Outcome.BAD), cache.counts.dead_letters["kafka"]) == (1, 1)


async def test_a_bad_event_that_cannot_be_put_aside_is_skipped_all_the_same(settings: KafkaSettings) -> None:
    cache = Cache()
    await send(settings, "model_updates", {"version": 5}, {"version": "v1"})
    async with reading(replace(settings, dead_letters="no name for a topic"), cache):
        await until(lambda: cache.flushed == ["version v1"])
        await until_committed(settings, 2)
    assert cache.counts.dead_letters["kafka"] == 0


async def test_a_record_without_a_value_and_one_that_is_too_large_are_bad(settings: KafkaSettings) -> None:
    cache = Cache()
    await send_raw(settings, "kb_updates", None, b'{"all": true}' + b" " * 100_000, b'{"all": true}')
    async with reading(settings, cache):
        await until(lambda: cache.flushed == ["all"])
    assert cache.outcomes(Outcome.BAD) == 2


@pytest.mark.parametrize("compression", ["gzip", "lz4", "snappy", "zstd"])
async def test_what_a_producer_compressed_is_read(settings: KafkaSettings, compression: str) -> None:
    cache = Cache()
    async with AIOKafkaProducer(**connection_options(settings), compression_type=compression) as producer:
        await producer.send_and_wait(f"{settings.group}.kb_updates", b'{"tags": ["' + b"a" * 100 + b'"]}')
    async with reading(settings, cache):
        await until(lambda: cache.flushed == ["tag " + "a" * 100])


async def test_a_new_consumer_goes_on_where_the_last_one_stopped(settings: KafkaSettings) -> None:
    before, after = Cache(), Cache()
    await send(settings, "model_updates", {"version": "v1"}, {"version": 0})
    async with reading(settings, before):
        await until(lambda: before.flushed == ["version v1"])
        await until_committed(settings, 2)
    await send(settings, "model_updates", {"version": "v2"})
    async with reading(settings, after):
        await until(lambda: after.flushed == ["version v2"])
    assert after.outcomes(Outcome.BAD) == 0


async def test_what_could_not_be_done_is_tried_again_and_not_acknowledged_before(settings: KafkaSettings) -> None:
    first, second = Cache(down=True), Cache(down=True)
    await send(settings, "model_updates", {"version": "v1"})
    async with reading(settings, first):
        await until(lambda: first.outcomes(Outcome.FAILED) >= 2)
    async with reading(settings, second):
        await until(lambda: second.outcomes(Outcome.FAILED) >= 1)
        second.down = False
        await until(lambda: second.flushed == ["version v1"])
        await until_committed(settings, 1)
    assert first.flushed == []


async def test_a_topic_that_is_made_later_is_read_from_its_beginning(settings: KafkaSettings) -> None:
    cache = Cache()
    await send(settings, "model_updates", {"version": "v1"})
    async with reading(settings, cache):
        await until(lambda: cache.flushed == ["version v1"])
        await send(settings, "kb_updates", {"category": "pricing"})
        await until(lambda: cache.flushed == ["version v1", "category pricing"])


async def test_a_group_of_a_new_process_begins_with_what_was_written_since_it_started(settings: KafkaSettings) -> None:
    cache, now = Cache(), time.time()
    await send_at(settings, now - 3600, "model_updates", {"version": "old"})
    await send_at(settings, now - 1, "model_updates", {"version": "new"})
    await send_at(settings, now - 3600, "user_activity", {"user_id": "old"})
    async with reading(replace(settings, since_seconds=now - 10), cache):
        await until(lambda: cache.flushed == ["version new"])
        await send(settings, "user_activity", {"user_id": "new"})
        await until(lambda: cache.flushed == ["version new", "tag user:new"])
        await send(settings, "kb_updates", {"category": "topic-made-later"})
        await until(lambda: cache.flushed == ["version new", "tag user:new", "category topic-made-later"])


async def test_an_event_that_fails_in_a_way_nobody_foresaw_is_put_aside_in_the_end(settings: KafkaSettings) -> None:
    cache = Cache(broken_by="v1")
    await send(settings, "model_updates", {"version": "v1"}, {"version": "v2"})
    async with reading(settings, cache):
        await until_committed(settings, 2)
        record = await first_record(settings.bootstrap, f"{settings.group}.bad")
    assert record.value == b'{"version": "v1"}'
    assert (cache.flushed, cache.outcomes(Outcome.BROKEN)) == (["version v2"], 5)


async def test_when_one_replica_of_a_group_leaves_another_carries_on(settings: KafkaSettings) -> None:
    first, second = Cache(), Cache()
    await send(settings, "model_updates", {"version": "v1"})
    async with reading(settings, second):
        async with reading(settings, first):
            await until(lambda: "version v1" in first.flushed + second.flushed)
            await send(settings, "model_updates", {"version": "v2"})
            await until(lambda: "version v2" in first.flushed + second.flushed)
        await send(settings, "model_updates", {"version": "v3"})
        await until(lambda: "version v3" in second.flushed)


@pytest.fixture
def absent_broker(tmp_path: Path) -> Iterator[KafkaServer]:
    """A broker of the test's own that is yet to start."""
    server = prepared(tmp_path / "kafka")
    try:
        yield server
    finally:
        server.stop()


async def test_a_broker_that_is_down_at_start_and_one_that_goes_away_are_waited_for(
    absent_broker: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings, cache = settings_for(absent_broker.bootstrap), Cache()
    async with reading(settings, cache):
        await until(lambda: cache.counts.interruptions["kafka"] >= 2)
        await asyncio.to_thread(absent_broker.start)
        await send(settings, "model_updates", {"version": "v1"})
        await until(lambda: cache.flushed == ["version v1"])
        await asyncio.to_thread(absent_broker.stop)
        await asyncio.to_thread(absent_broker.start)
        await send(settings, "model_updates", {"version": "v2"})
        await until(lambda: "version v2" in cache.flushed)
        await asyncio.to_thread(absent_broker.kill)
        await asyncio.to_thread(absent_broker.start)
        await send(settings, "model_updates", {"version": "v3"})
        await until(lambda: "version v3" in cache.flushed)
    assert sum(record.name.startswith("inference_cache") for record in caplog.records) < 30


async def test_leaving_a_broker_that_hangs_takes_seconds(absent_broker: KafkaServer) -> None:
    settings, cache = settings_for(absent_broker.bootstrap), Cache()
    await asyncio.to_thread(absent_broker.start)
    await send(settings, "model_updates", {"version": "v1"})
    async with reading(settings, cache):
        await until(lambda: cache.flushed == ["version v1"])
        await asyncio.to_thread(absent_broker.pause)
        began = time.monotonic()
    assert time.monotonic() - began < 30


@pytest.fixture(scope="module")
def guarded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker that wants TLS, a certificate of its authority, and a password."""
    folder = tmp_path_factory.mktemp("guarded")
    write_certificates(folder)
    (folder / "both.pem").write_bytes((folder / "server.key").read_bytes() + (folder / "server.pem").read_bytes())
    login = f'username="{USER}" password="{PASSWORD}"'
    module = "org.apache.kafka.common.security"
    config = (
        "listener.security.protocol.map=CLIENTS:SASL_SSL,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256",
        "sasl.mechanism.inter.broker.protocol=PLAIN",
        f'listener.name.clients.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {login} user_{USER}="{PASSWORD}";',
        f"listener.name.clients.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;",
        f"ssl.keystore.type=PEM\nssl.keystore.location={folder / 'both.pem'}",
        f"ssl.truststore.type=PEM\nssl.truststore.location={folder / 'ca.pem'}",
        "listener.name.clients.ssl.client.auth=required",
    )
    scram = f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]"
    with kafka_server(folder / "kafka", config=config, formatting=("--add-scram", scram)) as server:
        yield server


def security(server: KafkaServer, mechanism: Mechanism, password: str = PASSWORD) -> KafkaSecurity:
    certificates = server.folder.parent
    files = (str(certificates / name) for name in ("ca.pem", "server.pem", "server.key"))
    return KafkaSecurity("SASL_SSL", *files, mechanism, USER, password)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_broker_that_wants_tls_a_certificate_and_a_password_gets_them(guarded_broker: KafkaServer, mechanism: Mechanism) -> None:
    settings, cache = settings_for(guarded_broker.bootstrap, security(guarded_broker, mechanism)), Cache()
    await send(settings, "model_updates", {"version": "v1"})
    async with reading(settings, cache):
        await until(lambda: cache.flushed == ["version v1"])


async def test_a_refused_password_is_tried_again_and_told_without_it(guarded_broker: KafkaServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings, cache = settings_for(guarded_broker.bootstrap, security(guarded_broker, "PLAIN", "wrong-secret")), Cache()
    async with reading(settings, cache):
        await until(lambda: cache.counts.interruptions["kafka"] >= 2)
    assert "wrong-secret" not in caplog.text + repr(settings)


async def test_a_certificate_file_that_is_missing_is_told_and_tried_again(kafka_bootstrap: str, caplog: pytest.LogCaptureFixture) -> None:
    settings, cache = settings_for(kafka_bootstrap, KafkaSecurity("SSL", ca_file="absent.pem")), Cache()
    async with reading(settings, cache):
        await until(lambda: cache.counts.interruptions["kafka"] >= 2)
    assert "FileNotFoundError" in caplog.text


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiokafka", None)
    cache = Cache()
    with pytest.raises(CannotStart) as caught:
        KafkaEvents(KafkaSettings("127.0.0.1:9", "group"), cache.handler)
    assert str(caught.value) == "spec.invalidation.kafka needs the extra \"kafka\": pip install 'inference-cache[kafka]'"


async def send(settings: KafkaSettings, channel: str, *payloads: object) -> None:
    await send_raw(settings, channel, *(json.dumps(payload).encode() for payload in payloads))


async def send_at(settings: KafkaSettings, seconds: float, channel: str, payload: object) -> None:
    """Dated as if it had been written then."""
    async with AIOKafkaProducer(**connection_options(settings)) as producer:
        await producer.send_and_wait(f"{settings.group}.{channel}", json.dumps(payload).encode(), timestamp_ms=int(seconds * 1000))


async def send_raw(settings: KafkaSettings, channel: str, *payloads: bytes | None) -> None:
    async with AIOKafkaProducer(**connection_options(settings)) as producer:
        for payload in payloads:
            await producer.send_and_wait(f"{settings.group}.{channel}", payload, key=b"key")


async def first_record(bootstrap: str, topic: str) -> ConsumerRecord[bytes, bytes]:
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer, asyncio.timeout(SECONDS):
        return await consumer.getone()


async def until_committed(settings: KafkaSettings, offset: int) -> None:
    """Until the group's own word is that it has handled `offset` model updates."""
    partition = TopicPartition(f"{settings.group}.model_updates", 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(SECONDS):
            while (await committed(admin, settings.group, partition)) != offset:
                await asyncio.sleep(0.02)
    finally:
        await admin.close()


async def committed(admin: AIOKafkaAdminClient, group: str, partition: TopicPartition) -> int | None:
    offsets = await admin.list_consumer_group_offsets(group)
    return offsets[partition].offset if partition in offsets else None
