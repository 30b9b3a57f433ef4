"""A real Feast feature server with the repository of feast_repo.py, on a free port. Tests and the bench start it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from inference_cache_toolkit.processes import free_port, running, start

HERE = Path(__file__).parent
START_SECONDS = 300.0


@cache
def feast_python() -> Path:
    """The Python that has Feast; installed if it is missing."""
    script = subprocess.run([sys.executable, HERE / "install_feast.py"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(script.stdout.strip())


@contextmanager
def feast_server(folder: Path, *, users: int = 200, via: tuple[str, ...] = ()) -> Iterator[str]:
    """Its base URL. `via`: what starts it, such as `taskset -c 0`; everything it writes lies in `folder`. Raises StartError."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    environment = {**os.environ, "HOME": str(folder), "FEAST_USAGE": "False"}
    command = [*via, feast_python(), HERE / "feast_repo.py", folder, str(port), str(users)]
    child = start("feast", command, folder / "log", environment)
    url = f"http://127.0.0.1:{port}"
    with running(child, f"{url}/health", START_SECONDS):
        yield url
