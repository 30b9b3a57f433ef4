"""The base with Python that the images stand on: made from Debian's packages, or named by INFERENCE_CACHE_BASE_IMAGE."""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.binaries import program
from tests.cluster.cached import made_once
from tests.cluster.errors import BuildFailed
from tests.images import buildah

SUITE: Final = "bookworm"
PACKAGES: Final = ("python3", "python3-venv", "usr-is-merged")
"""The last one spares the 45 MB of Perl that Debian merges /usr with."""
_LEFT_OUT: Final = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*")
_OPTIONS: Final = (
    "--mode=root",
    "--variant=minbase",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    f"--include={','.join(PACKAGES)}",
    '--aptopt=APT::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)
_SECONDS: Final = 900


@dataclass(frozen=True, slots=True)
class Base:
    name: str
    """In buildah's store, or a registry's."""
    digest: str


def made() -> Base:
    """Takes half a minute the first time. Raises BuildFailed."""
    if named := os.environ.get("INFERENCE_CACHE_BASE_IMAGE"):
        return Base(named, hashlib.sha256(named.encode()).hexdigest())
    dockerfile = Path(__file__).with_name("base.Dockerfile")
    digest = hashlib.sha256(repr((SUITE, _OPTIONS)).encode() + dockerfile.read_bytes()).hexdigest()
    return Base(f"localhost/base:{digest[:12]}", digest)


def in_storage(storage: buildah.Storage) -> str:
    """The name of the base, once `storage` has it."""
    base = made()
    if base.name.startswith("localhost/") and not storage.holds(base.name):
        folder = made_once("image-base", base.digest, _bootstrap, f"making Debian {SUITE} with Python")
        storage.build(base.name, Path(__file__).with_name("base.Dockerfile"), folder, {})
    return base.name


def _bootstrap(folder: Path) -> None:
    command = [program("mmdebstrap"), *_OPTIONS, SUITE, folder / "base.tar"]
    variables = os.environ | {"SOURCE_DATE_EPOCH": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, env=variables, check=False)
    if done.returncode:
        raise BuildFailed(f"mmdebstrap: {done.stderr[-3000:]}")
