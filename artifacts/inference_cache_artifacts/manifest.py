"""What an artifact is made of: path, size and SHA-256 of every file. Pure.

As a file it is JSON: `{"files": [{"path": "config.json", "size": 656, "sha256": "…"}]}`; it lies beside the files as FILE_NAME, stands
in the resource, or is written by `inference-cache manifest`.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from inference_cache_artifacts.errors import BadManifest

FILE_NAME: Final = "inference-cache.manifest.json"
MAX_BYTES: Final = 16 << 20
"""A manifest of 100,000 files is about 15 MB."""
MAX_PATH_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 255
MAX_SIZE: Final = 1 << 44
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, order=True)
class File:
    """One file of an artifact."""

    path: str
    """Relative, parted by slashes, normal: no empty part, no `.` and no `..`."""
    size: int
    """Bytes; 0 is a file like any other."""
    sha256: str
    """64 hexadecimal digits, lower case."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Files by path, each once, none a folder of another."""

    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        """Names the content: equal for equal files, however the manifest was written. 64 hexadecimal digits."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def text(self) -> str:
        """As a manifest file, one line a file, in order of paths."""
        lines = [json.dumps({"path": file.path, "size": file.size, "sha256": file.sha256}, ensure_ascii=False) for file in self.files]
        return '{"files": [\n' + ",\n".join(lines) + "\n]}\n"


def manifest_of(files: Iterable[File]) -> Manifest:
    """Raises BadManifest where they cannot lie beside each other."""
    ordered = tuple(sorted(files))
    if not ordered:
        raise BadManifest("the manifest has no files")
    _check_together(ordered)
    return Manifest(ordered)


def parse_manifest(text: bytes) -> Manifest:
    """Raises BadManifest, which names the entry."""
    if len(text) > MAX_BYTES:
        raise BadManifest(f"the manifest has more than {MAX_BYTES} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"the manifest is no JSON ({type(error).__name__})") from None
    return read_manifest(document)


def read_manifest(document: object) -> Manifest:
    """From what JSON or YAML made of it. Raises BadManifest."""
    files = document.get("files") if isinstance(document, Mapping) else None
    if not isinstance(files, list):
        raise BadManifest("the manifest has no list `files`")
    return manifest_of(_read_file(each, f"files[{number}]") for number, each in enumerate(files))


def check_path(path: str, where: str = "path") -> str:
    """A path that stays within the folder it is put in. Raises BadManifest."""
    parts = path.split("/")
    if not path or len(path.encode(errors="surrogatepass")) > MAX_PATH_BYTES:
        raise BadManifest(f"{where}: a path has 1 to {MAX_PATH_BYTES} bytes")
    if any(part in {"", ".", ".."} for part in parts):
        raise BadManifest(f"{where}: {path!r} is absolute, or has an empty part, `.` or `..`", path)
    if any(len(part.encode(errors="surrogatepass")) > MAX_NAME_BYTES for part in parts):
        raise BadManifest(f"{where}: a name in {path!r} has more than {MAX_NAME_BYTES} bytes", path)
    if _CONTROL.search(path) or any("\ud800" <= character <= "\udfff" for character in path):
        raise BadManifest(f"{where}: {path!r} has characters that no file name should have", path)
    return path


def _read_file(raw: object, where: str) -> File:
    if not isinstance(raw, Mapping):
        raise BadManifest(f"{where}: not an object with path, size and sha256")
    path, size, sha256 = (raw.get(name) for name in ("path", "size", "sha256"))
    if not isinstance(path, str):
        raise BadManifest(f"{where}.path: not a text")
    check_path(path, f"{where}.path")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        raise BadManifest(f"{where}.size: {size!r} is not a number of bytes", path)
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256.lower()):
        raise BadManifest(f"{where}.sha256: not 64 hexadecimal digits", path)
    return File(path, size, sha256.lower())


def _check_together(ordered: tuple[File, ...]) -> None:
    paths = {file.path for file in ordered}
    if len(paths) != len(ordered):
        twice = next(one.path for one, other in itertools.pairwise(ordered) if one.path == other.path)
        raise BadManifest(f"the manifest has {twice!r} two times", twice)
    for file in ordered:
        parts = file.path.split("/")
        folder = next((name for end in range(1, len(parts)) if (name := "/".join(parts[:end])) in paths), None)
        if folder is not None:
            raise BadManifest(f"{folder!r} is a file, and the folder of {file.path!r}", file.path)
