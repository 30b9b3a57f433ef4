"""Real servers for tests: vLLM with a tiny model, nginx, Kafka, and the sidecar as a user starts it.

Each is stopped by its own process id.
"""

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.services.kafka_fixture import kafka_bootstrap, kafka_of_the_run

from inference_cache_contract.spec import parse_spec
from inference_cache_sidecar import app
from inference_cache_sidecar.settings import Address, Settings
from inference_cache_toolkit.processes import StartError, free_port, running, start

__all__ = ["kafka_bootstrap", "kafka_of_the_run"]
HERE = Path(__file__).parent
VLLM_SECONDS = 300.0
SIDECAR_SECONDS = 120.0
BYTE_LEVEL_BLANKS = "\u0120\u010a\u0109\u010d"
"""Blank, newline, tab and carriage return as a byte-level vocabulary writes them."""
ADMIN_TOKEN = "services-test-token"


@dataclass(frozen=True)
class VLLM:
    """A running vLLM: where it is and what it serves."""

    url: str
    model: str
    root: Path

    def without_white_space(self) -> dict[str, int]:
        """`logit_bias` that forbids tokens of white space alone: this model knows nothing, and would fill a tool call with them."""
        vocabulary = json.loads((self.root / "tokenizer.json").read_text())["model"]["vocab"]
        return {str(number): -100 for token, number in vocabulary.items() if set(token) <= set(BYTE_LEVEL_BLANKS)}


@dataclass(frozen=True)
class Sidecar:
    """A running sidecar; `token` opens the admin port."""

    url: str
    admin_url: str
    token: str


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python that has vLLM; installed if it is missing."""
    script = subprocess.run([sys.executable, HERE / "install_vllm.py"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(script.stdout.strip())


@pytest.fixture(scope="session")
def tiny_model(vllm_python: Path) -> Callable[[int], Path]:
    """Folder of the tiny model of a seed, made once a machine and recipe."""
    recipe = f"{(HERE / 'tiny_model.py').stat().st_size}"

    def folder(seed: int) -> Path:
        out = vllm_python.parents[2] / "models" / f"tiny-{recipe}-{seed}"
        if not out.exists():
            subprocess.run([vllm_python, HERE / "tiny_model.py", out, str(seed)], check=True, capture_output=True)
        return out

    return folder


@pytest.fixture(scope="session")
def start_vllm(
    vllm_python: Path, tiny_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., "VLLMHandle"]]:
    """`start_vllm(seed=0, port=None, extra=())` starts a vLLM; its handle stops it, the session's end stops those still there."""
    with ExitStack() as stack:

        def begin(seed: int = 0, port: int | None = None, extra: tuple[str, ...] = ()) -> VLLMHandle:
            handle = stack.enter_context(ExitStack())
            root, port = tiny_model(seed), port or free_port()
            log = tmp_path_factory.mktemp("vllm") / "log"
            child = start("vLLM", _vllm_command(vllm_python, root, port, extra), log, _vllm_environment())
            url = f"http://127.0.0.1:{port}"
            handle.enter_context(running(child, f"{url}/health", VLLM_SECONDS))
            return VLLMHandle(VLLM(url, "tiny", root), handle.close)

        yield begin


@dataclass(frozen=True)
class VLLMHandle:
    server: VLLM
    stop: Callable[[], None]


@pytest.fixture(scope="session")
def vllm(start_vllm: Callable[..., VLLMHandle]) -> VLLM:
    """The one vLLM that most tests share."""
    return start_vllm().server


def _vllm_command(python: Path, root: Path, port: int, extra: tuple[str, ...]) -> list[str | Path]:
    return [
        *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", root, "--served-model-name", "tiny"),
        *("--host", "127.0.0.1", "--port", str(port), "--max-model-len", "2048", "--enforce-eager", "--block-size", "32"),
        *("--enable-prompt-tokens-details", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        # A model that knows nothing would fill a JSON answer with white space to its limit.
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}', *extra),
    ]


def _vllm_environment() -> dict[str, str]:
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **settings}


@contextmanager
def sidecars(folder: Path) -> Iterator[Callable[..., Sidecar]]:
    """Starts sidecars whose files lie in `folder`, and stops them in the end."""
    numbers = itertools.count()
    command = Path(sys.executable).with_name("inference-cache")
    with ExitStack() as stack:

        def begin(upstream: str, spec: str | None = None, extra: tuple[str, ...] = ()) -> Sidecar:
            number, port, admin = next(numbers), free_port(), free_port()
            arguments = ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--upstream", upstream, *extra]
            if spec is not None:
                file = folder / f"spec-{number}.yaml"
                file.write_text(spec)
                arguments += ["--spec", str(file)]
            environment = {**os.environ, "INFERENCE_CACHE_ADMIN_TOKEN": ADMIN_TOKEN}
            child = start("sidecar", [command, "sidecar", *arguments], folder / f"sidecar-{number}.log", environment)
            stack.enter_context(running(child, f"http://127.0.0.1:{admin}/readyz", SIDECAR_SECONDS))
            return Sidecar(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", ADMIN_TOKEN)

        yield begin


@pytest.fixture
def run_sidecar(tmp_path: Path) -> Iterator[Callable[..., Sidecar]]:
    """`run_sidecar(upstream, spec=None)` starts `inference-cache sidecar` in front of `upstream`; `spec` is YAML."""
    with sidecars(tmp_path) as begin:
        yield begin


@pytest.fixture(scope="module")
def run_shared_sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Sidecar]]:
    """The same, for sidecars that all tests of a file share."""
    with sidecars(tmp_path_factory.mktemp("sidecars")) as begin:
        yield begin


@pytest.fixture
def sidecar_before() -> Callable[[str], AbstractAsyncContextManager[str]]:
    """`async with sidecar_before(upstream) as url`: a sidecar in this process, exact only, that keeps whatever may be kept."""
    spec = parse_spec({"semantic": {"mode": "Off"}, "sampling": {"cache": "All"}, "answers": {"length": "All", "contentFilter": "Exact"}})
    free = Address("127.0.0.1", 0)

    @asynccontextmanager
    async def begin(upstream: str) -> AsyncIterator[str]:
        async with app.running(Settings(free, upstream, free, spec, "test", "info", None)) as sidecar:
            identity = sidecar.parts.identity
            async with asyncio.timeout(SIDECAR_SECONDS):
                while not (identity.confirmed or identity.wants_key):
                    await asyncio.sleep(0.01)
            yield f"http://{sidecar.listen}"

    return begin


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream behind {{ server {upstream}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; {directives} }}
  }}
}}
"""


@pytest.fixture
def run_nginx(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`run_nginx(upstream_url, directives="")` starts nginx as a proxy before `upstream_url`; gives its own URL."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        raise StartError("nginx is missing: `make test` installs it")
    with ExitStack() as stack:

        def begin(upstream: str, directives: str = "") -> str:
            folder, port = tmp_path / "nginx", free_port()
            folder.mkdir()
            file = folder / "nginx.conf"
            file.write_text(NGINX.format(folder=folder, port=port, upstream=upstream.removeprefix("http://"), directives=directives))
            child = start("nginx", [program, "-c", file, "-p", folder, "-e", folder / "error.log"], folder / "log")
            stack.enter_context(running(child, f"http://127.0.0.1:{port}/health", SIDECAR_SECONDS))
            return f"http://127.0.0.1:{port}"

        yield begin
