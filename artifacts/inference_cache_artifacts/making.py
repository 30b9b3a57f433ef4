"""Make a manifest of what is there, and compare the two. Used by `manifest_command` and by `fetch --check`."""

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from inference_cache_artifacts.errors import BadRequest, Changed
from inference_cache_artifacts.manifest import FILE_NAME, File, Manifest, check_path, manifest_of
from inference_cache_artifacts.progress import Progress
from inference_cache_artifacts.store import disk

T = TypeVar("T")
R = TypeVar("R")
HASHERS: Final = 2
BUFFER_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Difference:
    """Between a manifest and a folder."""

    path: str
    what: str


def manifest_of_folder(folder: Path, progress: Progress, leave_out: Path | None = None) -> Manifest:
    """Of every file below but the manifest itself, and `leave_out`.

    Raises BadRequest (no folder; something that is neither file nor folder, or leads out of it), BadManifest (no files, or a path that no
    manifest may have), Changed, DiskFailed.
    """
    found = [each for each in files_below(folder) if each.path != FILE_NAME and not (leave_out and each.place == leave_out.resolve())]
    progress.planned(len(found), sum(each.size for each in found), 0)
    return manifest_of(in_threads(lambda each, stop: _file(each, progress, stop), found, HASHERS))


def differences(manifest: Manifest, folder: Path, progress: Progress) -> list[Difference]:
    """What is missing, other, or not named, in order of paths. Files of another size are not read. Raises as `manifest_of_folder`."""
    named = {file.path for file in manifest.files}
    there = {each.path: each for each in files_below(folder) if each.path != FILE_NAME or FILE_NAME in named}
    same_size = [file for file in manifest.files if file.path in there and there[file.path].size == file.size]
    progress.planned(len(same_size), sum(file.size for file in same_size), 0)
    hashed = {file.path: file for file in in_threads(lambda file, stop: _file(there[file.path], progress, stop), same_size, HASHERS)}
    differing = (_difference(file, there.get(file.path), hashed.get(file.path)) for file in manifest.files)
    extra = [Difference(path, "the manifest does not name it") for path in there if path not in named]
    return sorted([*filter(None, differing), *extra], key=lambda each: each.path)


@dataclass(frozen=True, slots=True)
class Found:
    """A file in a folder."""

    path: str
    """As a manifest names it."""
    place: Path
    size: int


def files_below(folder: Path) -> list[Found]:
    """In order of paths. Raises as `manifest_of_folder`."""
    if not folder.is_dir():
        raise BadRequest(f"{folder} is no folder")
    root = folder.resolve()
    with disk.disk_errors(root):
        return sorted(_walk(root), key=lambda each: each.path)


class Stopped(Exception):
    """Another thread failed, or nobody waits any more; never leaves `in_threads`."""


def in_threads(act: Callable[[T, threading.Event], R], items: Sequence[T], threads: int) -> list[R]:
    """In order. Raises what the first one raised; the others see the event, and raise Stopped as soon as they can."""
    stop = threading.Event()
    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
        futures = [pool.submit(act, item, stop) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
            return [future.result() for future in futures]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _walk(root: Path) -> Iterator[Found]:
    for here, folders, names in os.walk(root, onerror=_raise):
        folders.sort()
        for name in folders:
            if (link := Path(here, name)).is_symlink():
                raise BadRequest(f"{link} is a link to a folder; a manifest names files", _relative(link, root))
        for name in sorted(names):
            yield _found(Path(here, name), root)


def _raise(error: OSError) -> None:
    raise error


def _relative(place: Path, root: Path) -> str:
    return place.relative_to(root).as_posix()


def _found(place: Path, root: Path) -> Found:
    path = check_path(_relative(place, root))
    if place.is_symlink() and not place.resolve().is_relative_to(root):
        raise BadRequest(f"{path} is a link that leads out of the folder; copy the folder with cp -rL", path)
    seen = place.stat()
    if not stat.S_ISREG(seen.st_mode):
        raise BadRequest(f"{path} is neither file nor folder", path)
    return Found(path, place, seen.st_size)


def _file(found: Found, progress: Progress, stop: threading.Event) -> File:
    with disk.disk_errors(found.place):
        size, sha256 = _hash(found.place, progress, stop)
    if size != found.size:
        raise Changed(f"{found.path} changed while it was read: {found.size} bytes, then {size}", found.path)
    progress.verified(found.path, size)
    return File(found.path, size, sha256)


def _hash(place: Path, progress: Progress, stop: threading.Event) -> tuple[int, str]:
    digest, size, buffer = hashlib.sha256(), 0, bytearray(BUFFER_BYTES)
    with place.open("rb", buffering=0) as file, memoryview(buffer) as view:
        while count := file.readinto(view):
            if stop.is_set():
                raise Stopped
            digest.update(view[:count])
            progress.received(count)
            size += count
    return size, digest.hexdigest()


def _difference(file: File, found: Found | None, hashed: File | None) -> Difference | None:
    if found is None:
        return Difference(file.path, "missing")
    if hashed is None:
        return Difference(file.path, f"has {found.size} bytes, not {file.size}")
    return None if hashed == file else Difference(file.path, f"has SHA-256 {hashed.sha256}, not {file.sha256}")
