"""Install the real Feast feature server into a cache that every clone shares, and say where: prints the path of its Python.

`make test` runs it, and so does the `feast` fixture. As install_vllm.py, whose parts it uses.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from install_vllm import PROJECT, cache_folder, locked, uv

VERSION = "0.67.0"
LOCK = PROJECT / "locks" / "feast.txt"


def install(venv: Path) -> None:
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
    sys.stderr.write(f"installing Feast {VERSION} into {venv} (0.5 GB, once)\n")
    wanted = ["--no-deps", "--require-hashes", "-r", str(LOCK)]
    subprocess.run([uv(), "pip", "install", "--quiet", "--python", str(python), *wanted], check=True)
    subprocess.run([python, "-c", "import feast.feature_server"], check=True, capture_output=True)


def main() -> None:
    venv, recipe = cache_folder() / f"feast-{VERSION}", hashlib.sha256(LOCK.read_bytes()).hexdigest()
    marker = venv / "inference-cache-complete"
    with locked(cache_folder() / "feast.lock"):
        if not marker.exists() or marker.read_text() != recipe:
            marker.unlink(missing_ok=True)
            install(venv)
            marker.write_text(recipe)
    sys.stdout.write(f"{venv / 'bin' / 'python'}\n")


if __name__ == "__main__":
    main()
