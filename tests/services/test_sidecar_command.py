"""`inference-cache sidecar` as a process of its own: how it starts, what it says, how it ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from inference_cache_toolkit.processes import Child, answers, free_port, start, stop, wait_for

PROGRAM = Path(sys.executable).with_name("inference-cache")
QUICK = ("--semantic-mode", "Off")
START_SECONDS = 120.0
END_SECONDS = 25.0
"""Less than a connection that is never closed would hold up the end."""
ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "What is a cache?"}]}


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """`processes("sidecar", …)` starts that subcommand; what still runs is stopped in the end."""
    with ExitStack() as stack:

        def begin(subcommand: str, *arguments: str, **environment: str) -> Child:
            log = tmp_path / f"{subcommand}-{free_port()}.log"
            child = start(subcommand, [PROGRAM, subcommand, *arguments], log, {**os.environ, **environment})
            stack.callback(stop, child)
            return child

        yield begin


@pytest.fixture
def standin(processes: Callable[..., Child]) -> str:
    """The URL of a stand-in whose streams take half a second and more."""
    port = free_port()
    child = processes("standin", "--listen", f"127.0.0.1:{port}", "--first-token", "200ms", "--per-token", "50ms")
    wait_for(child, lambda: answers(f"http://127.0.0.1:{port}/health"), START_SECONDS)
    return f"http://127.0.0.1:{port}"


@contextmanager
def posted(port: int, **fields: object) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    connection.request("POST", "/v1/chat/completions", json.dumps({**ASKED, **fields}), {"Content-Type": "application/json"})
    yield connection.getresponse()
    connection.close()


def asked(port: int) -> str:
    """The Cache-Status of one plain question."""
    with posted(port) as response:
        response.read()
        return response.headers["Cache-Status"]


def started(processes: Callable[..., Child], upstream: str, *arguments: str, **environment: str) -> tuple[Child, int, int]:
    """A sidecar that is alive, its port and its admin port."""
    port, admin = free_port(), free_port()
    where = ("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--upstream", upstream)
    child = processes("sidecar", *where, *QUICK, *arguments, **environment)
    wait_for(child, lambda: answers(f"http://127.0.0.1:{admin}/livez"), START_SECONDS)
    return child, port, admin


def until_hit(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "; hit" not in asked(port):
        assert time.monotonic() < deadline, "no hit came"
        time.sleep(0.05)


def until_refused(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    with suppress(ConnectionRefusedError):
        while True:
            socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS).close()
            assert time.monotonic() < deadline, "it still takes connections"
            time.sleep(0.01)


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT], ids=lambda name: name.name)
def test_a_signal_lets_a_running_stream_finish_and_ends_with_status_0(processes, standin, name):
    child, port, _ = started(processes, standin)
    with posted(port, stream=True) as response:
        first = response.readline()
        child.process.send_signal(name)
        rest = response.read()
    assert first.startswith(b"data: {")
    assert rest.endswith(b"data: [DONE]\n\n")
    assert child.process.wait(END_SECONDS) == 0
    assert "Traceback" not in child.tail()


def test_a_sidecar_that_stops_takes_no_new_connections(processes, standin):
    child, port, _ = started(processes, standin)
    with posted(port, stream=True) as response:
        response.readline()
        child.process.terminate()
        until_refused(port)
        assert response.read().endswith(b"data: [DONE]\n\n")
    assert child.process.wait(END_SECONDS) == 0


def test_an_idle_kept_connection_does_not_hold_up_the_end(processes, standin):
    child, port, _ = started(processes, standin)
    with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as idle:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(4096).startswith(b"HTTP/1.1 200")
        child.process.terminate()
        assert child.process.wait(END_SECONDS) == 0


@pytest.mark.parametrize("taken", ["listen", "admin"])
def test_a_port_in_use_is_a_clear_error(processes, taken):
    with socket.create_server(("127.0.0.1", 0)) as other:
        busy = other.getsockname()[1]
        ports = {"listen": free_port(), "admin": free_port(), taken: busy}
        where = [argument for name, port in ports.items() for argument in (f"--{name}", f"127.0.0.1:{port}")]
        child = processes("sidecar", *where, "--upstream", "http://127.0.0.1:9", *QUICK)
        assert child.process.wait(START_SECONDS) not in (0, -signal.SIGTERM)
    assert str(busy) in child.tail()
    assert f"--{taken}" in child.tail()
    assert "Traceback" not in child.tail()


def test_it_starts_while_upstream_is_down_and_hits_once_it_is_up(processes):
    upstream = free_port()
    child, port, admin = started(processes, f"http://127.0.0.1:{upstream}")
    with posted(port) as response:
        assert response.status == 502
        assert "error" in json.load(response)
    assert not answers(f"http://127.0.0.1:{admin}/readyz")
    standin = processes("standin", "--listen", f"127.0.0.1:{upstream}", "--first-token", "0s", "--per-token", "0s")
    wait_for(standin, lambda: answers(f"http://127.0.0.1:{upstream}/health"), START_SECONDS)
    until_hit(port)
    wait_for(child, lambda: answers(f"http://127.0.0.1:{admin}/readyz"), START_SECONDS)


def administered(admin: int, token: str | None) -> int:
    headers = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    request = Request(f"http://127.0.0.1:{admin}/flush", b'{"all": true, "dryRun": true}', headers)
    try:
        with urlopen(request, timeout=START_SECONDS) as answer:
            return int(answer.status)
    except OSError as refused:
        return int(getattr(refused, "code", 0))


def test_the_admin_token_comes_from_the_environment(processes, standin):
    _, _, admin = started(processes, standin, INFERENCE_CACHE_ADMIN_TOKEN="s3cret-token")
    assert administered(admin, None) == 401
    assert administered(admin, "another") == 401
    assert administered(admin, "s3cret-token") == 200


def test_without_a_token_nothing_can_be_changed(processes, standin):
    _, _, admin = started(processes, standin, INFERENCE_CACHE_ADMIN_TOKEN="")
    assert {administered(admin, None), administered(admin, "")} <= {401, 403, 404}


def test_neither_prompt_nor_answer_nor_key_is_logged(processes, standin):
    child, port, _ = started(processes, standin, "--log-level", "debug")
    with posted(port) as response:
        answer = json.load(response)["choices"][0]["message"]["content"]
    until_hit(port)
    stop(child)
    said = child.log.read_text()
    assert ASKED["messages"][0]["content"] not in said
    assert answer not in said


def ran(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAM), "sidecar", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_SECONDS, env={**os.environ, **environment})


def test_help_names_every_place_a_setting_can_come_from():
    told = ran("--help")
    assert told.returncode == 0
    for words in ("--listen", "--upstream", "--admin", "--spec", "--semantic-threshold", "INFERENCE_CACHE_ADMIN_TOKEN", "0.92", "24h"):
        assert words in told.stdout


def test_print_config_prints_a_spec_that_it_reads_again(tmp_path):
    file = tmp_path / "cache.yaml"
    printed = ran("--print-config", "--upstream", "http://127.0.0.1:9", "--semantic-threshold", "0.95", INFERENCE_CACHE_EXACT_TTL="1h")
    file.write_text(printed.stdout)
    again = ran("--print-config", "--upstream", "http://127.0.0.1:9", "--spec", str(file))
    assert (printed.returncode, again.returncode) == (0, 0)
    read = yaml.safe_load(again.stdout)
    assert read == yaml.safe_load(printed.stdout)
    assert (read["semantic"]["threshold"], read["exact"]["ttl"]) == (0.95, "1h")


def test_a_wrong_setting_ends_with_its_place_and_no_traceback():
    refused = ran("--upstream", "http://127.0.0.1:9", "--semantic-threshold", "1.4")
    assert refused.returncode == 2
    assert "spec.semantic.threshold: 1.4 is not in [0, 1]" in refused.stderr
    assert "Traceback" not in refused.stderr
