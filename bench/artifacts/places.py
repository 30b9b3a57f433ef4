"""The artifact's files, and the servers that have them: SeaweedFS, and one that does nothing but send."""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import psutil
from tests.artifacts.seaweedfs import KEY, SECRET, seaweedfs

from bench.artifacts.static_s3 import COUNT
from bench.artifacts.tools import BUCKET, FOLDER, SUMS, Place
from inference_cache_artifacts.manifest import File, manifest_of
from inference_cache_toolkit.processes import free_port, running, start

MIB: Final = 1 << 20
START_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Artifact:
    root: Path
    """Has a folder for the bucket, as `static_s3` wants it."""
    files: tuple[File, ...]

    @property
    def source(self) -> Path:
        return self.root / BUCKET / FOLDER

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def place(self, endpoint: str) -> Place:
        names = tuple(file.path for file in self.files)
        return Place(endpoint, KEY, SECRET, names, self.source, self.root / "manifest.json")

    def is_in(self, folder: Path, hashed: bool) -> bool:
        """Whether the files there are the right ones; without `hashed` only by their sizes."""
        return all(_is(folder / file.path, file, hashed) for file in self.files)


@dataclass(frozen=True, slots=True)
class Served:
    name: str
    place: Place
    processes: Sequence[psutil.Process]

    def cpu_seconds(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)


def made(root: Path, sizes: Sequence[int]) -> Artifact:
    """Random files of so many MiB, in the page cache."""
    folder = root / BUCKET / FOLDER
    folder.mkdir(parents=True)
    artifact = Artifact(root, tuple(_written(folder / f"model-{number}.safetensors", size) for number, size in enumerate(sizes)))
    (root / "manifest.json").write_text(manifest_of(artifact.files).text())
    (root / SUMS).write_text("".join(f"{file.sha256}  {file.path}\n" for file in artifact.files))
    return artifact


@contextmanager
def static(artifact: Artifact, folder: Path) -> Iterator[Served]:
    port = free_port()
    child = start("static server", [sys.executable, "-m", "bench.artifacts.static_s3", artifact.root, str(port)], folder / "static.log")
    endpoint = f"http://127.0.0.1:{port}"
    with running(child, endpoint + COUNT, START_SECONDS):
        yield Served("a server that only sends (sendfile, no signatures)", artifact.place(endpoint), [psutil.Process(child.process.pid)])


@contextmanager
def weed(artifact: Artifact, folder: Path) -> Iterator[Served]:
    """Uploaded as the AWS tools do it, in parts of 8 MiB."""
    own = folder / "weed"
    own.mkdir()
    with ExitStack() as stack:
        before = set(psutil.Process().children())
        server = stack.enter_context(seaweedfs(own))
        client = server.client()
        stack.callback(client.close)
        for file in artifact.files:
            client.upload_file(str(artifact.source / file.path), BUCKET, f"{FOLDER}/{file.path}")
        yield Served("SeaweedFS", artifact.place(server.endpoint), [each for each in psutil.Process().children() if each not in before])


def requests(served: Served) -> int:
    """Of the static server, until now."""
    with urlopen(served.place.endpoint + COUNT) as answer:
        return int(answer.read())


def _written(path: Path, mib: int) -> File:
    digest = hashlib.sha256()
    with path.open("wb") as sink:
        for _ in range(mib):
            piece = os.urandom(MIB)
            digest.update(piece)
            sink.write(piece)
    return File(path.name, mib * MIB, digest.hexdigest())


def _is(path: Path, file: File, hashed: bool) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if not hashed:
        return True
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest() == file.sha256
