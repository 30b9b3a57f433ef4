"""Where Kafka is, who we are to it, and what we read there. `kafka` takes it."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from inference_cache_sidecar.events.payloads import CHANNELS

REQUEST_SECONDS: Final = 15.0

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """Files are PEM. Without `ca_file` the system's authorities are trusted; the host's name is always checked."""

    protocol: Protocol = "PLAINTEXT"
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    mechanism: Mechanism = "PLAIN"
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    bootstrap: str
    """HOST:PORT of some brokers, separated by commas."""
    group: str
    """Replicas that share a store share a group: one of them flushes for all. Others each need their own."""
    topics: Mapping[str, str] = field(default_factory=lambda: {channel: channel for channel in CHANNELS})
    """Channel by topic. A topic that is not there yet is read, from its beginning, once it is."""
    dead_letters: str | None = None
    """The topic that bad events go to, as they came."""
    since_seconds: float | None = None
    """Where a group begins that has committed nothing: with events from this time on, in seconds since 1970; None: with the first.
    One flush too many costs hits, one too few serves what is wrong."""
    security: KafkaSecurity = KafkaSecurity()
    refresh_seconds: float = 30.0
    """How often to look for topics and partitions that are new."""


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """As aiokafka's clients take them. Raises OSError (ssl.SSLError is one) for files that are missing or broken."""
    security = settings.security
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap,
        "client_id": "inference-cache",
        "security_protocol": security.protocol,
        "request_timeout_ms": int(REQUEST_SECONDS * 1000),
        "retry_backoff_ms": 500,
        "metadata_max_age_ms": int(settings.refresh_seconds * 1000),
    }
    if security.protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(security)
    if security.protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": security.password,
        }
    return options


def _ssl_context(security: KafkaSecurity) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=security.ca_file)
    if security.certificate_file is not None:
        context.load_cert_chain(security.certificate_file, security.key_file)
    return context
