"""Children that serve: waited for with a reason when they fail, ended by their own id, on ports that are free."""

import socket
import sys
from pathlib import Path

import pytest

from inference_cache_toolkit import processes
from inference_cache_toolkit.processes import PORTS, StartError, free_port, running, start

SERVER = (
    "import http.server, sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()"
)


def test_a_child_is_up_inside_and_gone_after(tmp_path: Path) -> None:
    port = free_port()
    child = start("server", [sys.executable, "-c", SERVER, str(port)], tmp_path / "log")
    with running(child, f"http://127.0.0.1:{port}/", 20):
        assert child.process.poll() is None
    assert child.process.poll() is not None


def test_a_child_that_ends_early_is_named_with_its_last_words(tmp_path: Path) -> None:
    child = start("server", [sys.executable, "-c", "import sys; sys.exit('no such model')"], tmp_path / "log")
    with pytest.raises(StartError, match=r"(?s)server ended with status 1.*no such model"), running(child, "http://127.0.0.1:1/", 20):
        pass


def test_a_child_that_never_answers_is_ended(tmp_path: Path) -> None:
    child = start("server", [sys.executable, "-c", "import signal; signal.pause()"], tmp_path / "log")
    with pytest.raises(StartError, match=r"server was not ready within 0\.1 s"), running(child, "http://127.0.0.1:1/", 0.1):
        pass
    assert child.process.poll() is not None


def test_a_taken_port_is_replaced_and_a_free_one_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) != port
    assert free_port(port) == port


def test_a_free_port_is_nobodys_for_an_outgoing_connection_and_given_once() -> None:
    ports = [free_port(beside=(1,)) for _ in range(300)]
    assert set(ports) <= set(PORTS)
    assert len(set(ports)) == len(ports)


def test_ports_beside_a_free_one_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(processes, "PORTS", range(port - 150, port + 150))
        assert port - 3 not in [free_port(beside=(3,)) for _ in range(100)]
