"""Real servers of files: SeaweedFS for S3, nginx as a CDN, and a web server that fails on demand."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.artifacts.fault_server import FaultServer, fault_server
from tests.artifacts.seaweedfs import SeaweedFS, seaweedfs

from inference_cache_toolkit.processes import StartError, free_port, running, start

NGINX_SECONDS = 60.0
NGINX = """\
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    sendfile on;
    server {{
        listen 127.0.0.1:{port};
        location = /health {{ return 200; }}
        location / {{ root {files}; }}
        {directives}
    }}
}}
"""


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One for the run: a test makes buckets or prefixes of its own."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The folder that `web` and `start_nginx` serve."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def web(files: Path) -> Iterator[FaultServer]:
    with fault_server(files) as server:
        yield server


@pytest.fixture
def start_nginx(tmp_path: Path, files: Path) -> Iterator[Callable[[str], str]]:
    """`start_nginx(directives)` serves `files`; gives the URL, with a slash at the end."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        raise StartError("nginx is missing: `make test` installs it")
    with ExitStack() as stack:

        def begin(directives: str = "") -> str:
            folder, port = tmp_path / "nginx", free_port()
            folder.mkdir()
            config = folder / "nginx.conf"
            # Its workers would become another user, who may not look into a test's folders.
            user = "user root;" if os.geteuid() == 0 else ""
            config.write_text(NGINX.format(user=user, folder=folder, port=port, files=files, directives=directives))
            child = start("nginx", [program, "-c", config, "-p", folder, "-e", folder / "error.log"], folder / "log")
            stack.enter_context(running(child, f"http://127.0.0.1:{port}/health", NGINX_SECONDS))
            return f"http://127.0.0.1:{port}/"

        yield begin
