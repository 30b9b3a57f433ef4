"""Files in S3: by ranges, and only of the object that was there at first."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from inference_cache_artifacts.errors import BadManifest, BadRequest, Changed, Forbidden, Missing, Unreachable
from inference_cache_artifacts.manifest import check_path
from inference_cache_artifacts.source import Algorithm, Body, Remote
from inference_cache_artifacts.sources.addresses import S3Address
from inference_cache_artifacts.sources.answers import best_checksum, content_range, same
from inference_cache_artifacts.sources.bodies import EmptyBody, RangeBody, give_up
from inference_cache_artifacts.sources.options import S3Access, SourceOptions

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from urllib3.response import BaseHTTPResponse

    from inference_cache_artifacts.sources.s3_client import Asking

MOST_FILES: Final = 200_000
_CHECKSUMS: Final[Mapping[Algorithm, str]] = {
    "sha256": "ChecksumSHA256",
    "crc64nvme": "ChecksumCRC64NVME",
    "crc32c": "ChecksumCRC32C",
    "crc32": "ChecksumCRC32",
}


class S3Source:
    """A folder of a bucket, or one object where the address names one and nothing is below."""

    def __init__(self, address: S3Address, access: S3Access, options: SourceOptions) -> None:
        self._address = address
        self._access = access
        self._options = options
        self._lock = threading.Lock()
        self._made: Asking | None = None
        self._is_object = False

    @property
    def url(self) -> str:
        return self._address.url

    def listing(self) -> Sequence[Remote]:
        """As `source.Source` promises; without checksums. Raises BadManifest for a key that is no path."""
        files = list(self._below())
        if files:
            return files
        if self._address.only_folder:
            raise Missing(f"{self.url}: nothing is there")
        answer = self._head(self._address.name, self._address.basename)
        self._is_object = True
        return [_remote(self._address.basename, answer)]

    def head(self, path: str) -> Remote:
        return _remote(path, self._at(path, lambda key: self._head(key, path)))

    def read(self, path: str, limit: int) -> bytes:
        answer = self._at(path, lambda key: self._ask(path, lambda client: client.get_object(Bucket=self._address.bucket, Key=key)))
        size = int(answer["ContentLength"])
        raw = _raw(answer)
        if size > limit:
            give_up(raw)
            raise BadManifest(f"{self._where(path)}: it has {size} bytes, and {limit} are allowed", path)
        return RangeBody(raw, size, self._where(path)).whole(size)

    @contextmanager
    def open(self, remote: Remote, start: int, end: int) -> Iterator[Body]:
        if start >= end:
            yield EmptyBody()
            return
        answer = self._at(remote.path, lambda key: self._range(key, remote, start, end))
        body = RangeBody(_raw(answer), end - start, self._where(remote.path))
        try:
            self._check(answer, remote, start, end)
            yield body
        finally:
            body.close()

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def _below(self) -> Iterator[Remote]:
        token: dict[str, Any] = {}
        count = 0
        while True:
            page = self._page(token)
            for entry in page.get("Contents", ()):
                if (remote := listed(entry, self._address)) is not None:
                    count += 1
                    yield remote
            if count > MOST_FILES:
                raise BadRequest(f"{self.url}: there are more than {MOST_FILES} files")
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, token: Mapping[str, Any]) -> Mapping[str, Any]:
        address = self._address
        try:
            return self._ask("", lambda client: client.list_objects_v2(Bucket=address.bucket, Prefix=address.prefix, **token))
        except Forbidden as error:
            raise Forbidden(f"{error}; listing it takes s3:ListBucket, a manifest does without") from None

    def _range(self, key: str, remote: Remote, start: int, end: int) -> Mapping[str, Any]:
        match: dict[str, Any] = {} if remote.etag is None else {"IfMatch": remote.etag}
        asked = f"bytes={start}-{end - 1}"
        return self._ask(remote.path, lambda client: client.get_object(Bucket=self._address.bucket, Key=key, Range=asked, **match))

    def _head(self, key: str, path: str) -> Mapping[str, Any]:
        return self._ask(path, lambda client: client.head_object(Bucket=self._address.bucket, Key=key, ChecksumMode="ENABLED"))

    def _check(self, answer: Mapping[str, Any], remote: Remote, start: int, end: int) -> None:
        """Stores that pass over If-Match, or over Range, are told by their answers."""
        where = self._where(remote.path)
        if not same(answer.get("ETag"), remote.etag):
            raise Changed(f"{where}: the source holds another object than before", remote.path)
        told = answer.get("ContentRange")
        if told is None:
            whole = (start, end) == (0, remote.size) == (0, answer.get("ContentLength"))
            if not whole:
                raise Unreachable(f"{where}: the source passes over the range that is asked for", remote.path)
        elif content_range(told) != (start, end, remote.size):
            raise Changed(f"{where}: the source answers {told!r} of {remote.size} bytes", remote.path)

    def _at(self, path: str, ask: Callable[[str], Mapping[str, Any]]) -> Mapping[str, Any]:
        """By its key below the folder; where the address names an object, by that."""
        address = self._address
        if self._is_object and path == address.basename:
            return ask(address.name)
        try:
            return ask(address.key(path))
        except Missing:
            if address.only_folder or path != address.basename:
                raise
        answer = ask(address.name)
        self._is_object = True
        return answer

    def _ask(self, path: str, what: "Callable[[S3Client], object]") -> Mapping[str, Any]:
        return self._asking().ask(what, self._where(path))

    def _asking(self) -> "Asking":
        # The SDK takes longer to load than a warm start may take in all.
        from inference_cache_artifacts.sources.s3_client import Asking, made  # noqa: PLC0415

        with self._lock:
            if self._made is None:
                self._made = Asking(partial(made, self._access, self._options), lasting=self._access.key is not None)
            return self._made

    def _where(self, path: str) -> str:
        return f"s3://{self._address.bucket}/{self._address.name if self._is_object or not path else self._address.key(path)}"


def listed(entry: Mapping[str, Any], address: S3Address) -> Remote | None:
    """None for what only marks a folder. Raises BadManifest."""
    key, size = str(entry["Key"]), int(entry["Size"])
    if key.endswith("/") and not size:
        return None
    path = check_path(key.removeprefix(address.prefix), f"{address.url}: the key {key!r}")
    return Remote(path, size, entry.get("ETag"))


def _remote(path: str, answer: Mapping[str, Any]) -> Remote:
    told: dict[Algorithm, str] = {name: answer[field] for name, field in _CHECKSUMS.items() if field in answer}
    whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return Remote(path, int(answer["ContentLength"]), answer.get("ETag"), best_checksum(told) if whole else None)


def _raw(answer: Mapping[str, Any]) -> "BaseHTTPResponse":
    """The SDK's body copies what it reads, and raises at the end of an answer that was cut off; entered, it gives what it wraps."""
    return cast("BaseHTTPResponse", answer["Body"].__enter__())
