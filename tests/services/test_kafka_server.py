"""The Kafka of the tests: what it promises to the tests that use it, and how it is installed."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from tests.services import install_kafka
from tests.services.kafka_server import KafkaServer, prepared

pytestmark = pytest.mark.services
INSTALLER = Path(install_kafka.__file__)


async def test_a_record_is_produced_and_consumed(kafka_bootstrap: str) -> None:
    await produce(kafka_bootstrap, b"hello")
    assert await consume(kafka_bootstrap) == b"hello"


async def test_a_broker_keeps_its_records_when_it_is_paused_killed_and_started_again(tmp_path: Path) -> None:
    server = prepared(tmp_path / "kafka")
    try:
        await start(server)
        await produce(server.bootstrap, b"kept")
        await asyncio.to_thread(server.pause)
        server.resume()
        await asyncio.to_thread(server.stop)
        assert not server.is_up
        await start(server)
        server.kill()
        await start(server)
        assert await consume(server.bootstrap) == b"kept"
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.parametrize(("present", "named"), [((), "openjdk-17-jre-headless"), (("java",), "maven")], ids=["no-java", "no-maven"])
def test_the_installer_names_the_package_that_is_missing(tmp_path: Path, present: tuple[str, ...], named: str) -> None:
    for program in present:
        (tmp_path / program).symlink_to("/bin/true")
    environment = {**os.environ, "PATH": str(tmp_path), "INFERENCE_CACHE_CACHE": str(tmp_path / "cache")}
    run = subprocess.run([sys.executable, INSTALLER], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert f"install the Debian package {named}" in run.stderr


def test_the_installer_refuses_a_jar_that_is_missing_unknown_or_changed() -> None:
    wanted = {"a.jar": "1", "b.jar": "2"}
    assert install_kafka.differences(wanted, wanted) == []
    assert install_kafka.differences({"a.jar": "3", "c.jar": "4"}, wanted) == [
        "b.jar is missing",
        "c.jar is not pinned",
        "a.jar has the digest 3, not 1",
    ]


def test_what_is_pinned_is_the_version_that_is_named() -> None:
    assert f"kafka_2.13-{install_kafka.VERSION}.jar" in install_kafka.pinned()


async def start(server: KafkaServer) -> None:
    await asyncio.to_thread(server.start)


async def produce(bootstrap: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await producer.send_and_wait("greetings", value)


async def consume(bootstrap: str) -> bytes | None:
    async with AIOKafkaConsumer("greetings", bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        async with asyncio.timeout(60):
            record = await consumer.getone()
        return record.value
