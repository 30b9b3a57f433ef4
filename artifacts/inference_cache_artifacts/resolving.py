"""What an artifact's files are, and which mirrors have them. Called by `fetching` before the first byte."""

import hashlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from inference_cache_artifacts.errors import ArtifactError, BadManifest, Missing, Transient, Unreachable, Unverifiable
from inference_cache_artifacts.manifest import FILE_NAME, MAX_BYTES, Manifest, parse_manifest
from inference_cache_artifacts.request import Request
from inference_cache_artifacts.source import Checksum, Remote, Source
from inference_cache_artifacts.transfer.limiting import backoff_seconds

PATIENCE_SECONDS: Final = 60.0
"""For mirrors that might answer next time."""
OPTIONAL_ROUNDS: Final = 3
Wait = Callable[[float], None]
"""Waits so many seconds; raises where the caller has given up."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Expected:
    """A file before it is fetched."""

    path: str
    size: int
    checksums: tuple[Checksum, ...]
    identity: str
    """Equal for equal bytes."""


@dataclass(frozen=True, slots=True)
class Resolved:
    files: tuple[Expected, ...]
    manifest: Manifest | None
    """None: it is made when the files are there."""
    mirrors: tuple[Source, ...]
    """That have these very files."""
    listings: tuple[Sequence[Remote] | None, ...]
    """What each has told of its files already."""


def resolve(request: Request, sources: Sequence[Source], wait: Wait) -> Resolved:
    """By the manifest where there is one, with every mirror; else as the first mirror lists it. Raises ArtifactError."""
    manifest = request.manifest or _manifest_beside(request, sources, wait)
    if manifest is not None:
        return _by_manifest(manifest, sources)
    return first_answer(sources, lambda source: _by_listing(request, source, wait), wait)


def _by_manifest(manifest: Manifest, sources: Sequence[Source]) -> Resolved:
    files = [Expected(file.path, file.size, (Checksum("sha256", bytes.fromhex(file.sha256)),), file.sha256) for file in manifest.files]
    return Resolved(tuple(files), manifest, tuple(sources), (None,) * len(sources))


def _manifest_beside(request: Request, sources: Sequence[Source], wait: Wait) -> Manifest | None:
    """The first mirror's that has one, and the right one. None where none has one, and none was pinned."""
    try:
        pinned = bool(request.manifest_sha256)
        return first_answer(sources, lambda source: _checked(source.read(FILE_NAME, MAX_BYTES), request, source), wait, optional=not pinned)
    except Missing:
        if request.manifest_sha256:
            raise
        return None


def _checked(text: bytes, request: Request, source: Source) -> Manifest:
    if request.manifest_sha256 and hashlib.sha256(text).hexdigest() != request.manifest_sha256:
        raise BadManifest(f"{source.url}: {FILE_NAME} is not the one whose SHA-256 was given", FILE_NAME)
    return parse_manifest(text)


def _by_listing(request: Request, source: Source, wait: Wait) -> Resolved:
    listed = source.listing()
    if listed is None:
        raise Unverifiable(f"{source.url}: there is no {FILE_NAME}, without which nobody can know what files there are")
    if not listed:
        raise Missing(f"{source.url}: there are no files")
    remotes = _with_checksums(source, listed, wait) if request.verify else listed
    files = tuple(_expected(source, each, verify=request.verify) for each in remotes)
    return Resolved(files, None, (source,), (remotes,))


def _with_checksums(source: Source, listed: Sequence[Remote], wait: Wait) -> list[Remote]:
    with ThreadPoolExecutor(8, "head") as pool:
        return list(pool.map(lambda each: first_answer([source], lambda source: source.head(each.path), wait), listed))


def _expected(source: Source, remote: Remote, *, verify: bool) -> Expected:
    if verify and remote.checksum is None:
        raise Unverifiable(
            f"{remote.path}: {source.url} keeps no checksum of it, and there is no {FILE_NAME}: make one with `inference-cache manifest`, "
            "or say that nothing is to be verified",
            remote.path,
        )
    checksums = () if remote.checksum is None or not verify else (remote.checksum,)
    known = remote.checksum.value.hex() if remote.checksum is not None else ""
    return Expected(remote.path, remote.size, checksums, f"{source.url} {remote.path} {remote.etag} {remote.size} {known}")


def first_answer(sources: Sequence[Source], ask: Callable[[Source], _T], wait: Wait, *, optional: bool = False) -> _T:
    """Of the first mirror that has one; those that might have one next time are asked again, all in turn.

    `optional`: where one says that it does not have it, the others are not waited for long. Raises what the first of them said that said
    more than that it does not have it; Unreachable where the patience ends.
    """
    began = time.monotonic()
    said: dict[int, ArtifactError] = {}
    for rounds in itertools.count(1):
        retry_after: float | None = None
        for number, source in enumerate(sources):
            if number in said:
                continue
            try:
                return ask(source)
            except ArtifactError as error:
                said[number] = error
            except Transient as error:
                retry_after = error.retry_after_seconds
                if time.monotonic() - began > PATIENCE_SECONDS:
                    said[number] = Unreachable(f"{source.url}: {error}")
        missing = next((error for error in said.values() if isinstance(error, Missing)), None)
        if optional and missing is not None and rounds >= OPTIONAL_ROUNDS:
            raise missing
        if len(said) == len(sources):
            raise _first(said)
        wait(backoff_seconds(rounds, retry_after))
    raise AssertionError


def _first(said: Mapping[int, ArtifactError]) -> ArtifactError:
    in_order = [said[number] for number in sorted(said)]
    return next((each for each in in_order if not isinstance(each, Missing)), in_order[0])
