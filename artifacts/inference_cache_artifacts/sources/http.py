"""Files below a URL: nobody lists them, and what serves them may be a CDN, a signed URL, or a redirect to one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from inference_cache_artifacts.errors import BadManifest, Changed, Unreachable
from inference_cache_artifacts.source import Body, Remote
from inference_cache_artifacts.sources.addresses import HttpAddress
from inference_cache_artifacts.sources.answers import checksum_of, content_range, failure, same, strong
from inference_cache_artifacts.sources.bodies import EmptyBody, RangeBody
from inference_cache_artifacts.sources.http_client import Answered, HttpClient, finish
from inference_cache_artifacts.sources.options import HttpAccess, SourceOptions

MOST_SKIPPED: Final = 8 << 20
"""Bytes read and thrown away, where a server sends the whole file for a range."""
_STALE: Final = frozenset({400, 401, 403, 404, 410})
"""What a redirect's target answers when its time is over."""
_NO_HEAD: Final = frozenset({400, 401, 403, 405, 501})
"""URLs that are signed for GET refuse HEAD."""


class HttpSource:
    """A folder of a web server."""

    def __init__(self, address: HttpAddress, access: HttpAccess, options: SourceOptions) -> None:
        self._address = address
        user = HttpAccess(None, address.username, address.password)
        self._client = HttpClient(address.url, user if access == HttpAccess() else access, options)
        self._targets: dict[str, str] = {}
        """Where a file's URL led to the last time; what is there may be signed for a short while."""

    @property
    def url(self) -> str:
        return self._address.url

    def listing(self) -> None:
        return None

    def head(self, path: str) -> Remote:
        """As `source.Source` promises. Raises Unreachable where the server does not tell the size."""
        asked = self._asked("HEAD", path, {})
        if asked.status in _NO_HEAD or (asked.status == 200 and asked.header("content-length") is None):
            finish(asked.answer)
            asked = self._asked("GET", path, {"Range": "bytes=0-0"})
        try:
            return self._remote(asked, path)
        finally:
            finish(asked.answer)

    def read(self, path: str, limit: int) -> bytes:
        asked = self._asked("GET", path, {})
        where = self._where(path)
        try:
            self._check_status(asked, path, {200})
            size = _length(asked)
            if size is None:
                return self._until_its_end(asked, path, limit)
            self._check_limit(size, limit, path)
            return RangeBody(asked.answer, size, where).whole(size)
        finally:
            finish(asked.answer)

    @contextmanager
    def open(self, remote: Remote, start: int, end: int) -> Iterator[Body]:
        if start >= end:
            yield EmptyBody()
            return
        asked = self._asked("GET", remote.path, _range_headers(remote, start, end))
        body = RangeBody(asked.answer, end, self._where(remote.path))
        try:
            body = self._positioned(asked, remote, start, end)
            yield body
        finally:
            body.close()

    def close(self) -> None:
        self._client.close()

    def _asked(self, method: str, path: str, headers: Mapping[str, str]) -> Answered:
        """From where its URL led to before; from the URL itself where that fails, or nothing is known."""
        where, known = self._where(path), self._targets.pop(path, None)
        if known is not None:
            asked = self._client.request(method, known, headers, where)
            if asked.status not in _STALE:
                return self._remembered(path, asked)
            finish(asked.answer)
        return self._remembered(path, self._client.request(method, self._address.file(path), headers, where))

    def _remembered(self, path: str, asked: Answered) -> Answered:
        if asked.status in {200, 206} and asked.url != self._address.file(path):
            self._targets[path] = asked.url
        return asked

    def _positioned(self, asked: Answered, remote: Remote, start: int, end: int) -> RangeBody:
        """A body whose next byte is number `start`."""
        self._check_status(asked, remote.path, {200, 206})
        self._check_same(asked, remote)
        where = self._where(remote.path)
        if asked.status == 206:
            self._check_range(asked, remote, start, end)
            return RangeBody(asked.answer, end - start, where)
        if start > MOST_SKIPPED:
            raise Unreachable(
                f"{where}: the source sends the whole file in the place of a range, as a server does that knows no ranges", remote.path
            )
        if _length(asked) not in {None, remote.size}:
            raise Changed(f"{where}: the source has {_length(asked)} bytes, and had {remote.size}", remote.path)
        body = RangeBody(asked.answer, end, where)
        body.skip(start)
        return body

    def _check_range(self, asked: Answered, remote: Remote, start: int, end: int) -> None:
        told = asked.header("content-range")
        if content_range(told) != (start, end, remote.size):
            raise Changed(f"{self._where(remote.path)}: the source answers {told!r} of {remote.size} bytes", remote.path)

    def _check_same(self, asked: Answered, remote: Remote) -> None:
        if not same(strong(asked.header("etag")), remote.etag):
            raise Changed(f"{self._where(remote.path)}: the source holds another file than before", remote.path)

    def _check_status(self, asked: Answered, path: str, wanted: set[int]) -> None:
        where = self._where(path)
        if asked.status not in wanted:
            raise failure(asked.status, where, asked.header("retry-after"))
        encoding = asked.header("content-encoding")
        if encoding not in {None, "", "identity"}:
            raise Unreachable(f"{where}: the source sends it encoded ({encoding}), though asked for it as it is", path)

    def _remote(self, asked: Answered, path: str) -> Remote:
        told = content_range(asked.header("content-range"))
        if asked.status == 416 and told is not None and told[2] == 0:
            return Remote(path, 0, strong(asked.header("etag")))
        self._check_status(asked, path, {200, 206})
        size = told[2] if asked.status == 206 and told is not None else _length(asked)
        if size is None:
            raise Unreachable(f"{self._where(path)}: the source does not say how long it is", path)
        headers = {name.lower(): value for name, value in asked.answer.headers.items()}
        return Remote(path, size, strong(asked.header("etag")), checksum_of(headers))

    def _until_its_end(self, asked: Answered, path: str, limit: int) -> bytes:
        """Of an answer that does not say how long it is."""
        text = RangeBody(asked.answer, limit + 1, self._where(path)).rest()
        self._check_limit(len(text), limit, path)
        return text

    def _check_limit(self, size: int, limit: int, path: str) -> None:
        if size > limit:
            raise BadManifest(f"{self._where(path)}: it has more than the {limit} bytes that are allowed", path)

    def _where(self, path: str) -> str:
        return self._address.shown(path)


def _range_headers(remote: Remote, start: int, end: int) -> dict[str, str]:
    asked = {"Range": f"bytes={start}-{end - 1}"}
    return asked if remote.etag is None else {**asked, "If-Range": remote.etag, "If-Match": remote.etag}


def _length(asked: Answered) -> int | None:
    text = asked.header("content-length") or ""
    return int(text) if text.isdecimal() and text.isascii() else None
