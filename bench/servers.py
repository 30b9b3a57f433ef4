"""The processes of the serving bench, each on its core: upstream and load on one, whatever stands between them on the other."""

import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.prefilled import FILLED
from inference_cache_contract.endpoints import ADMIN_TOKEN_VARIABLE, REDIS_URL_VARIABLE
from inference_cache_toolkit.processes import Child, StartError, free_port, running, start, stop, wait_for

START_SECONDS: Final = 120.0
ADMIN_TOKEN: Final = "bench-token"
COMMAND: Final = Path(sys.executable).with_name("inference-cache")
NGINX: Final = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  upstream behind {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """What wrk asks, and the processes whose time and memory count; none of them where wrk asks upstream itself."""

    url: str
    process: psutil.Process | None = None
    admin_url: str = ""

    def cpu_seconds(self) -> float:
        """User and system, of all threads and children."""
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def age_seconds(self) -> float:
        """Since the process began."""
        return time.time() - self.process.create_time() if self.process is not None else 0.0

    def rss_mb(self) -> float:
        return sum(process.memory_info().rss for process in self._processes()) / 1e6

    def _processes(self) -> list[psutil.Process]:
        return [] if self.process is None else [self.process, *self.process.children(recursive=True)]


def cores() -> tuple[list[str], list[str]]:
    """Command prefixes: for what is measured, and for upstream with the load. Empty where there is one core or no taskset."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2 or shutil.which("taskset") is None:
        return [], []
    return ["taskset", "-c", str(usable[0])], ["taskset", "-c", str(usable[1])]


def _environment(redis_url: str | None) -> dict[str, str] | None:
    """None: this process's own, without a shared store."""
    if redis_url is None:
        return None
    return {**os.environ, REDIS_URL_VARIABLE: redis_url, ADMIN_TOKEN_VARIABLE: ADMIN_TOKEN}


class Servers:
    """Starts them; `stack` stops them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._measured, self.beside = cores()

    def _start(self, name: str, command: list[str | Path], *, measured: bool = True, environment: Mapping[str, str] | None = None) -> Child:
        log = self._folder / f"{name}-{time.monotonic_ns()}.log"
        return start(name, [*(self._measured if measured else self.beside), *command], log, environment)

    def _running(self, child: Child, url: str, ready: str = "/health") -> Server:
        self._stack.enter_context(running(child, url + ready, START_SECONDS))
        return Server(url, psutil.Process(child.process.pid))

    def upstream(self) -> Server:
        """The stand-in, without latency."""
        address = f"127.0.0.1:{free_port()}"
        child = self._start(
            "standin", [COMMAND, "standin", "--listen", address, "--first-token", "0s", "--per-token", "0s"], measured=False
        )
        return Server(self._running(child, f"http://{address}").url)

    def nginx(self, upstream: Server) -> Server:
        program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if program is None:
            raise StartError("nginx is missing: `make bench` installs it")
        folder, port = self._folder / "nginx", free_port()
        folder.mkdir()
        file = folder / "nginx.conf"
        file.write_text(NGINX.format(folder=folder, port=port, upstream=upstream.url.removeprefix("http://")))
        child = self._start("nginx", [program, "-c", file, "-p", folder, "-e", folder / "error.log"])
        return self._running(child, f"http://127.0.0.1:{port}")

    def minimal(self, upstream: Server) -> Server:
        port = free_port()
        child = self._start("minimal", [sys.executable, "-m", "bench.minimal_proxy", upstream.url, str(port)])
        return self._running(child, f"http://127.0.0.1:{port}")

    def sidecar(self, upstream: Server, *flags: str, redis_url: str | None = None) -> Server:
        address, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        command: list[str | Path] = [COMMAND, "sidecar", "--listen", address, "--admin", admin, "--upstream", upstream.url, *flags]
        child = self._start("sidecar", command, environment=_environment(redis_url))
        server = self._running(child, f"http://{admin}", "/readyz")
        return Server(f"http://{address}", server.process, f"http://{admin}")

    def prefilled(self, upstream: Server, entries: int, vectors: Path, *flags: str) -> Server:
        """A sidecar with `entries` in one scope: bench/prefilled.py."""
        address, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        command: list[str | Path] = [sys.executable, "-m", "bench.prefilled", "--entries", str(entries), "--vectors", vectors]
        child = self._start("prefilled", [*command, "--listen", address, "--admin", admin, "--upstream", upstream.url, *flags])
        self._stack.callback(stop, child)
        wait_for(child, lambda: FILLED in child.tail().split(), START_SECONDS)
        return Server(f"http://{address}", psutil.Process(child.process.pid))
