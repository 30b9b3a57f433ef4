"""Runs buildah with a store of its own in the cache: no daemon, no user namespaces, the machine's network."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.binaries import program
from tests.cluster.cached import cache_folder
from tests.cluster.errors import BuildFailed
from tests.images import package_index

BUILD_SECONDS: Final = 1200
STORAGE: Final = "image-storage"


@dataclass(frozen=True, slots=True)
class Storage:
    """Images and the layers between; one process at a time."""

    folder: Path

    def build(self, name: str, dockerfile: Path, context: Path, arguments: Mapping[str, str]) -> None:
        """Layers that were made before from the same content are used again. Raises BuildFailed."""
        given = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
        with tempfile.TemporaryDirectory() as secrets:
            hidden = [part for secret in package_index.secrets(Path(secrets)) for part in ("--secret", secret)]
            command = ["build", "--isolation", "chroot", "--layers", "--file", dockerfile, "--tag", name]
            self.run([*command, *given, *hidden, context])

    def save(self, name: str, archive: Path, reference: str) -> None:
        self.run(["push", "--quiet", name, f"docker-archive:{archive}:{reference}"])

    def load(self, archive: Path, name: str) -> None:
        self.run(["tag", self.run(["pull", "--quiet", f"docker-archive:{archive}"]).strip(), name])

    def holds(self, name: str) -> bool:
        return name in self.run(["images", "--format", "{{.Name}}:{{.Tag}}"]).split()

    @contextmanager
    def mounted(self, name: str) -> Iterator[Path]:
        """The image's files, unpacked."""
        container = self.run(["from", "--pull-never", name]).strip()
        try:
            yield Path(self.run(["mount", container]).strip())
        finally:
            self.run(["rm", container])

    def run(self, command: Sequence[str | Path]) -> str:
        """buildah's answer. Raises BuildFailed with the end of what it said."""
        places = ["--root", self.folder / "root", "--runroot", self.folder / "run", "--storage-driver", "overlay"]
        variables = os.environ | {"TMPDIR": str(self.folder)}
        whole = [program("buildah"), *places, *command]
        done = subprocess.run(whole, capture_output=True, text=True, timeout=BUILD_SECONDS, env=variables, check=False)
        if done.returncode:
            raise BuildFailed(f"buildah {command[0]}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout


@contextmanager
def storage() -> Iterator[Storage]:
    """The cache's, for this process alone."""
    folder = cache_folder() / STORAGE
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{STORAGE}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield Storage(folder)
