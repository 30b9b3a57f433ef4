"""A Source that a pod reads for us: with its credentials, which never come here. What it says of files is checked like any stranger's."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final, TypeVar

from aiohttp import StreamReader

from inference_cache_artifacts import errors
from inference_cache_artifacts.agent.relay import Call, Relay
from inference_cache_artifacts.errors import ArtifactError, BadManifest, BadRequest, Transient, Unreachable
from inference_cache_artifacts.handover.protocol import MOST_PARTS, Failure, Job, What, has_too_many_parts, read_remotes
from inference_cache_artifacts.manifest import MAX_SIZE, check_path
from inference_cache_artifacts.source import Remote

MOST_LISTED_BYTES: Final = 20 << 20
"""A listing of 100,000 files is about 20 MB."""
_LARGE_SECONDS: Final = 30.0
"""For the bytes to come, once they have begun to; the pod has them all by then."""
_MOST_TOLD_BYTES: Final = 64 << 10
_large = threading.BoundedSemaphore(2)
"""So many listings and manifests at a time are in memory, of all fetches."""
_T = TypeVar("_T")
_OF_A_SOURCE: Final = ("BadManifest", "BadRequest", "Changed", "Corrupt", "Forbidden", "Missing", "Unreachable", "Unverifiable")


def error_of(kind: str, failure: Failure) -> ArtifactError | Transient:
    """What the pod's source raised; anything that is not a source's to raise is the pod's trouble."""
    if kind == Transient.__name__:
        return Transient(failure.message, failure.retry_after_seconds)
    made: type[ArtifactError] = getattr(errors, kind) if kind in _OF_A_SOURCE else Unreachable
    return made(failure.message, failure.file)


class RelayedBody:
    def __init__(self, relay: Relay, call: Call, content: StreamReader) -> None:
        self._relay = relay
        self._call = call
        self._content = content
        self._rest = memoryview(b"")

    def readinto(self, buffer: memoryview) -> int:
        """As `source.Body` promises."""
        if not self._rest:
            self._rest = memoryview(self._relay.more(self._call, self._content))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class RelayedSource:
    def __init__(self, relay: Relay, number: int, url: str) -> None:
        self._relay = relay
        self._number = number
        self._url = url

    @property
    def url(self) -> str:
        return self._url

    def listing(self) -> Sequence[Remote] | None:
        remotes = self._whole("listing", read_remotes, most=MOST_LISTED_BYTES)
        return None if remotes is None else [_checked(each) for each in remotes]

    def head(self, path: str) -> Remote:
        remotes = self._whole("head", lambda text: read_remotes(b"[%s]" % text), path, most=_MOST_TOLD_BYTES) or []
        if [each.path for each in remotes] != [path]:
            raise BadRequest(f"{path}: the pod that reads the source told of another file", path)
        return _checked(remotes[0])

    def read(self, path: str, limit: int) -> bytes:
        text = self._whole("read", bytes, path, limit=limit, most=limit)
        if has_too_many_parts(text):
            raise BadManifest(f"{path}: it has more than {MOST_PARTS} parts", path)
        return text

    @contextmanager
    def open(self, remote: Remote, start: int, end: int) -> Iterator[RelayedBody]:
        job = Job(self._relay.number(), self._number, "open", remote.path, remote=remote, start=start, end=end)
        with self._relay.ask(job) as (call, content):
            yield RelayedBody(self._relay, call, content)

    def close(self) -> None:
        """The pod closes its own."""

    def _whole(self, what: What, read: Callable[[bytes], _T], path: str = "", *, limit: int = 0, most: int) -> _T:
        job = Job(self._relay.number(), self._number, what, path, limit)
        with self._relay.ask(job) as (call, content), nullcontext() if most <= _MOST_TOLD_BYTES else _large:
            return read(self._all(call, content, most))

    def _all(self, call: Call, content: StreamReader, most: int) -> bytes:
        """Raises Transient, Abandoned, BadManifest."""
        until, whole, path = time.monotonic() + _LARGE_SECONDS, bytearray(), call.job.path
        while part := self._relay.more(call, content):
            whole += part
            if len(whole) > most:
                raise BadManifest(f"{path or self._url}: it has more than the {most} bytes that are allowed", path or None)
            if time.monotonic() > until:
                raise Transient(f"{path or self._url}: it took longer than {_LARGE_SECONDS:g} s")
        return bytes(whole)


def _checked(remote: Remote) -> Remote:
    """Its path becomes a path on this node's disk."""
    check_path(remote.path, "a file of the source")
    if remote.size > MAX_SIZE:
        raise BadRequest(f"{remote.path}: {remote.size} is not a number of bytes", remote.path)
    return remote
