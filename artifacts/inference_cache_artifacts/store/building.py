"""Fills the folder of a tree to be: hard links to blobs, empty files and the marker, all synced. Called by `publishing` alone."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Final

from inference_cache_artifacts.errors import Corrupt, Missing
from inference_cache_artifacts.manifest import File, Manifest
from inference_cache_artifacts.store import blobs, disk
from inference_cache_artifacts.store.layout import FILES, MARKER, Store

_REFUSED: Final = frozenset({errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP, errno.ENOSYS})
_OF_NOTHING: Final = hashlib.sha256(b"").hexdigest()


class BlobGone(Missing):
    """A blob that was there is not, or has another size: a collector on another node was quicker. Fetch it again."""


def fill(store: Store, folder: Path, manifest: Manifest, sources: tuple[str, ...]) -> None:
    """Raises BlobGone, Corrupt, OSError."""
    files = folder / FILES
    made = _make_folders(files, manifest)
    for file in manifest.files:
        _put(store, file, files / file.path)
    disk.write_new(folder / MARKER, marker_text(manifest, sources), 0o444)
    for each in (*made, folder):
        each.chmod(0o755)
        disk.sync(each)


def _make_folders(files: Path, manifest: Manifest) -> list[Path]:
    """The deepest first: so they are synced."""
    wanted = {files}
    for file in manifest.files:
        parents = (files / file.path).parents
        wanted.update(parent for parent in parents if files in parent.parents)
    ordered = sorted(wanted, key=lambda folder: len(folder.parts))
    for folder in ordered:
        folder.mkdir()
    return ordered[::-1]


def _put(store: Store, file: File, target: Path) -> None:
    if file.size == 0:
        _put_empty(file, target)
        return
    blob = store.blob(file.sha256)
    try:
        _link(blob, target)
    except FileNotFoundError:
        if target.parent.exists():
            raise BlobGone(f"{blob}: is gone", file.path) from None
        raise
    if target.stat().st_size != file.size:
        raise BlobGone(f"{blob}: has {target.stat().st_size} bytes, not {file.size}", file.path)


def _put_empty(file: File, target: Path) -> None:
    if file.sha256 != _OF_NOTHING:
        raise Corrupt(f"{file.path} is promised to be empty, with the SHA-256 of something", file.path)
    disk.write_new(target, b"", blobs.MODE)


def _link(blob: Path, target: Path) -> None:
    try:
        os.link(blob, target)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        _copy(blob, target)


def _copy(blob: Path, target: Path) -> None:
    """Where links are refused; shares the bytes where the file system can."""
    with blob.open("rb") as source, target.open("xb") as sink:
        try:
            while os.copy_file_range(source.fileno(), sink.fileno(), 1 << 30):
                pass
        except OSError as error:
            if error.errno not in _REFUSED | {errno.EINVAL}:
                raise
            source.seek(0)
            sink.seek(0)
            shutil.copyfileobj(source, sink, 1 << 20)
            sink.flush()
        os.fchmod(sink.fileno(), blobs.MODE)
        os.fsync(sink.fileno())


def marker_text(manifest: Manifest, sources: tuple[str, ...]) -> bytes:
    """A manifest like any other, whose first line is all that `find` needs."""
    head = {"digest": manifest.digest, "size": manifest.size, "count": len(manifest.files), "sources": sources}
    return f"{json.dumps(head)[:-1]},\n{manifest.text()[1:]}".encode()
