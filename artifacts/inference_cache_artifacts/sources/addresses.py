"""What a source's URL means. Pure."""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from inference_cache_artifacts.errors import BadRequest

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class S3Address:
    """`name` without a slash at its end: a folder, or, unless `only_folder`, perhaps an object."""

    bucket: str
    name: str
    only_folder: bool

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.name}{'/' if self.only_folder and self.name else ''}"

    @property
    def prefix(self) -> str:
        """Begins every key below, and none beside: `v1.2/`, never `v1.20`. Empty for the whole bucket."""
        return f"{self.name}/" if self.name else ""

    @property
    def basename(self) -> str:
        return self.name.rpartition("/")[2]

    def key(self, path: str) -> str:
        return self.prefix + path


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """A folder."""

    url: str
    """With a slash at the end; without user, password, query."""
    query: str = field(default="", repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def file(self, path: str) -> str:
        """Where to ask for it; has the query, so it is not for people."""
        return f"{self.url}{quote(path, safe='/~')}{'?' + self.query if self.query else ''}"

    def shown(self, path: str) -> str:
        return f"{self.url}{path}"


def s3_address(url: str) -> S3Address:
    """Of `s3://BUCKET/PREFIX/`; the name stands as it is, nothing in it is decoded. Raises BadRequest."""
    bucket, _, name = _printable(url).removeprefix("s3://").partition("/")
    if "@" in bucket:
        raise BadRequest("s3://…@…: credentials do not stand in the URL of a bucket")
    if not _BUCKET.fullmatch(bucket):
        raise BadRequest(f"s3://{bucket}/: {bucket!r} cannot be the name of a bucket")
    if name.startswith("/") or name.endswith("//"):
        raise BadRequest(f"s3://{bucket}/{name}: a folder without a name")
    return S3Address(bucket, name.removesuffix("/"), name.endswith("/") or not name)


def http_address(url: str, plain_http: bool) -> HttpAddress:
    """Of `https://HOST/PATH`. Raises BadRequest, which shows neither user nor query."""
    parts = _split(_printable(url))
    host = parts.hostname or ""
    if not host:
        raise BadRequest(f"{parts.scheme}: a URL without a host")
    if parts.scheme == "http" and not plain_http and not is_loopback(host):
        raise BadRequest(f"http://{host}/: plain HTTP is refused beyond this machine; use https, or allow it")
    shown = f"{parts.scheme}://{_place(parts)}{_folder(parts.path)}"
    user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
    return HttpAddress(shown, parts.query, user, password)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def origin(url: str) -> tuple[str, str, int | None]:
    """Who gets what is sent there."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise BadRequest("a URL that cannot be read: its host or port makes no sense") from None
    return parts


def _printable(url: str) -> str:
    if _UNPRINTABLE.search(url):
        raise BadRequest("a URL with characters that cannot be printed")
    return url


def _place(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if parts.port is None else f"{host}:{parts.port}"


def _folder(path: str) -> str:
    return quote(path.rstrip("/"), safe="/%~!$&'()*+,;=:@") + "/"
