"""A real Kafka for tests, started when first asked for. Imported by conftest.py."""

from collections.abc import Iterator

import pytest
from tests.services.kafka_server import KafkaServer, kafka_server


@pytest.fixture(scope="session")
def kafka_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """The broker that most tests share, each with topics and groups of its own; nobody stops it."""
    with kafka_server(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_of_the_run: KafkaServer) -> str:
    """Where the shared broker is: HOST:PORT."""
    return kafka_of_the_run.bootstrap
