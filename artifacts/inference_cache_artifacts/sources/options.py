"""What a source is opened with, and what a Secret's keys mean. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from inference_cache_artifacts.errors import BadRequest

_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")
_NO_CONTROL: Final = re.compile(r"[^\x00-\x1f\x7f]*")
_ADDRESSING: Final = frozenset({"auto", "path", "virtual"})
_TRUTH: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to reach a source, and as whom."""

    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Keys as they stand in a Secret; those that mean nothing here are passed over. Empty: for S3 the SDK's own chain."""
    ca_file: str | None = None
    """PEM, in the place of the system's authorities."""
    plain_http: bool = False
    """Allows `http://` beyond this machine."""
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 20.0
    """Without a single byte."""
    connections: int = 8
    """Kept open for the next request, at most."""


@dataclass(frozen=True, slots=True)
class S3Access:
    """`key` is None where the SDK is to look for credentials itself."""

    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    region: str | None = None
    addressing: str | None = None
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class HttpAccess:
    """Nothing, a bearer token, or user and password."""

    token: str | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def s3_access(credentials: Mapping[str, str]) -> S3Access:
    """Raises BadRequest, which names the key."""
    key, secret = _value(credentials, "AWS_ACCESS_KEY_ID"), _value(credentials, "AWS_SECRET_ACCESS_KEY")
    if (key is None) != (secret is None):
        raise BadRequest(f"credentials: {'AWS_ACCESS_KEY_ID' if key is None else 'AWS_SECRET_ACCESS_KEY'} is missing beside the other")
    addressing = _value(credentials, "AWS_S3_ADDRESSING_STYLE")
    if addressing not in {None, *_ADDRESSING}:
        raise BadRequest("credentials: AWS_S3_ADDRESSING_STYLE is none of auto, path, virtual")
    return S3Access(
        key=key,
        secret=secret,
        token=_value(credentials, "AWS_SESSION_TOKEN"),
        endpoint=_endpoint(credentials),
        region=_value(credentials, "AWS_REGION", "AWS_DEFAULT_REGION"),
        addressing=addressing,
        anonymous=_truth(credentials, "AWS_S3_ANONYMOUS"),
    )


def http_access(credentials: Mapping[str, str]) -> HttpAccess:
    """Raises BadRequest, which names the key."""
    token = _value(credentials, "token", "HTTP_BEARER_TOKEN")
    username, password = (_value(credentials, name, allowed=_NO_CONTROL) for name in ("username", "password"))
    if token is not None and username is not None:
        raise BadRequest("credentials: a token and a username; only one can be sent")
    if password is not None and username is None:
        raise BadRequest("credentials: username is missing beside password")
    return HttpAccess(token, username, password)


def _endpoint(credentials: Mapping[str, str]) -> str | None:
    endpoint = _value(credentials, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if endpoint is not None and not re.match(r"https?://[^/@?#]+(/|$)", endpoint):
        raise BadRequest("credentials: AWS_ENDPOINT_URL is not like https://HOST:PORT")
    return endpoint


def _value(credentials: Mapping[str, str], *names: str, allowed: re.Pattern[str] = _PRINTABLE) -> str | None:
    """The first of `names` that says something. Line ends around it come from `echo … | base64` and are nobody's secret."""
    for name in names:
        value = credentials.get(name, "").strip()
        if not allowed.fullmatch(value):
            raise BadRequest(f"credentials: {name} has characters that cannot be sent")
        if value:
            return value
    return None


def _truth(credentials: Mapping[str, str], name: str) -> bool:
    value = credentials.get(name, "").strip().lower()
    if value not in _TRUTH:
        raise BadRequest(f"credentials: {name} is neither true nor false")
    return _TRUTH[value]
