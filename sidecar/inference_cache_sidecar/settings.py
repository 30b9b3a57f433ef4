"""What a sidecar process is started with. `command` makes it, `app.run` takes it apart; nothing below reads the environment."""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from inference_cache_contract.configuration import Configuration
from inference_cache_contract.endpoints import ADMIN_PORT, ADMIN_TOKEN_VARIABLE, FEATURES_PORT, SERVING_PORT
from inference_cache_contract.errors import shown
from inference_cache_contract.spec import Spec
from inference_cache_contract.spec_table import variable_of
from inference_cache_sidecar.shared.address import RedisAddress, parse_redis_url
from inference_cache_sidecar.supervisor.inheritance import Inherited

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_ADDRESS: Final = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:\[\]/@]+)):(?P<port>[0-9]{1,5})")
KEY_BYTES: Final = 32
LEAST_TENANCY_KEY: Final = 16
DRAIN_SECONDS: Final = 120.0
ADDRESS_FIELD: Final = "spec.store.redis.urlSecretRef"
ENCRYPTION_KEY_FIELD: Final = "spec.store.redis.encryptionKeySecretRef"
_TOKEN: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is told by the environment alone."""

    encryption_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """32 bytes each; the first encrypts what goes into the shared store, all decrypt. None: plain."""
    tenancy_key: bytes | None = field(default=None, repr=False)
    """Turns credentials into tenants; None: agreed on through the shared store, or random."""
    kafka_username: str | None = None
    """None: no login."""
    kafka_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What flags, variables and files together ask for."""

    spec: Spec
    drain_seconds: float = DRAIN_SECONDS
    """How long a draining sidecar waits for what is in flight (spec.rollout.drainTimeout)."""
    missing_secrets: tuple[str, ...] = ()
    """Fields that name a secret whose variable is empty, such as `spec.store.redis.encryptionKeySecretRef`."""

    @property
    def must_not_share(self) -> bool:
        """Answers are to be encrypted in the shared store, and there is no key."""
        return ENCRYPTION_KEY_FIELD in self.missing_secrets


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """The hot configuration, which is read again and again."""

    path: Path
    wanted: Callable[[Configuration], Wanted]
    """With it between the variables and the file of `--spec`. Raises SpecErrors."""


@dataclass(frozen=True, slots=True)
class DrainSettings:
    token: str | None = field(default=None, repr=False)
    """None: nobody can order it."""
    least_seconds: float = 5.0
    """Until nobody who routes requests sends any here."""


@dataclass(frozen=True, slots=True)
class Settings:
    listen: Address
    upstream: str
    """Scheme, host and port, without a path."""
    admin: Address
    spec: Spec
    cache_name: str
    log_level: str
    admin_token: str | None = field(default=None, repr=False)
    """None: the admin port answers reads only."""
    redis: RedisAddress | None = None
    """None: this sidecar keeps its answers to itself."""
    secrets: Secrets = Secrets()
    features: Address = Address("127.0.0.1", FEATURES_PORT)
    """Where the feature cache listens, if the spec names a feature server."""
    revision: str = ""
    """What whoever started this process knows of how upstream is run: a digest, or nothing."""
    drain_seconds: float = DRAIN_SECONDS
    missing_secrets: tuple[str, ...] = ()
    configuration: ConfigurationFile | None = None
    """None: what this process was started with holds until it ends."""
    drain: DrainSettings = DrainSettings()
    inherited: Inherited | None = None
    """None: no supervisor started this process."""
    supervise: bool = False
    """This process becomes the supervisor."""

    @property
    def wanted(self) -> Wanted:
        """Without the hot configuration."""
        return Wanted(self.spec, self.drain_seconds, self.missing_secrets)


@dataclass(frozen=True, slots=True)
class ProcessSetting:
    """A setting of the process, not of the resource."""

    flag: str
    metavar: str
    default: str | None
    help: str
    switch: bool = False
    """A boolean: `--name` or `--no-name`."""

    @property
    def variable(self) -> str:
        return variable_of(self.flag)


LISTEN: Final = ProcessSetting("--listen", "HOST:PORT", f"127.0.0.1:{SERVING_PORT}", "where clients connect")
UPSTREAM: Final = ProcessSetting("--upstream", "URL", None, "the model server, e.g. http://127.0.0.1:18000; required")
ADMIN: Final = ProcessSetting(
    "--admin",
    "HOST:PORT",
    f"127.0.0.1:{ADMIN_PORT}",
    f"health, metrics, status and the admin API; its writes need the bearer token in {ADMIN_TOKEN_VARIABLE}, and are off without one",
)
FEATURES: Final = ProcessSetting(
    "--features", "HOST:PORT", f"127.0.0.1:{FEATURES_PORT}", "where the feature cache listens, if spec.features.upstream is given"
)
SPEC_FILE: Final = ProcessSetting("--spec", "FILE", None, "YAML file with the resource's spec (or the whole resource)")
CACHE_NAME: Final = ProcessSetting("--cache-name", "NAME", "inference-cache", "namespace/name of the resource; part of every entry's scope")
REVISION: Final = ProcessSetting(
    "--revision", "TEXT", "", "digest of how the model server is run; part of every entry's scope, as what it says of itself"
)
CONFIGURATION: Final = ProcessSetting(
    "--configuration", "FILE", None, "the hot configuration, as the operator writes it: heeded while running; beats the file of --spec"
)
LOG_LEVEL: Final = ProcessSetting("--log-level", "LEVEL", "info", "debug, info, warning or error")
SUPERVISE: Final = ProcessSetting(
    "--supervise",
    "",
    "false",
    "run the cache as a child that is restarted, and pass requests straight to the model server while it is away",
    switch=True,
)
PROCESS_SETTINGS: Final = (LISTEN, UPSTREAM, ADMIN, FEATURES, SPEC_FILE, CACHE_NAME, REVISION, CONFIGURATION, LOG_LEVEL, SUPERVISE)


def parse_address(text: str) -> Address:
    """Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{shown(text)} is not HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000")
    return Address(match["six"] or match["host"], int(match["port"]))


def parse_upstream(text: str) -> str:
    """Scheme, host and port. Raises ValueError; a path is refused, since a request's own path is passed on as it came."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or not _port_is_valid(text):
        raise ValueError(f"{shown(text)} is not a URL such as http://127.0.0.1:18000")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{shown(text)} must end after the port: every request's own path is passed on")
    return f"{parts.scheme}://{parts.netloc}"


def _port_is_valid(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def parse_cache_name(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{shown(text)} has characters that cannot be printed")
    return text


def parse_log_level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ValueError(f"{shown(text)} is not one of {', '.join(LOG_LEVELS)}")
    return text.lower()


def parse_switch(text: str) -> bool:
    """Raises ValueError."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{shown(text)} is not true or false")
    return text.lower() == "true"


def parse_redis(text: str) -> RedisAddress | None:
    """Raises ValueError; the message never quotes the URL, which may hold a password."""
    return parse_redis_url(text) if text.strip() else None


def parse_encryption_keys(text: str) -> tuple[bytes, ...]:
    """Keys in base64, parted by commas or white space. Raises ValueError; the message never quotes one."""
    keys = []
    for part in text.replace(",", " ").split():
        try:
            key = base64.b64decode(part, validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"must hold keys of {KEY_BYTES} bytes in base64, such as `openssl rand -base64 {KEY_BYTES}` makes")
        keys.append(key)
    return tuple(keys)


def parse_tenancy_key(text: str) -> bytes | None:
    """Raises ValueError; the message never quotes it."""
    key = text.strip()
    if key and len(key) < LEAST_TENANCY_KEY:
        raise ValueError(f"must have {LEAST_TENANCY_KEY} characters or more: whoever guesses it can tell whose answers are whose")
    return key.encode() or None


def parse_login(text: str) -> str | None:
    """A user's name or a password: as it is, but for the line's end that a file may have."""
    return text.rstrip("\r\n") or None


def parse_token(text: str) -> str | None:
    """Raises ValueError for a token that no Authorization header could carry; the message never quotes it."""
    token = text.strip()
    if token and not _TOKEN.fullmatch(token):
        raise ValueError("must be printable ASCII without blanks")
    return token or None
