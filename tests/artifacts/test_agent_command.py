"""The agent as a process, with pods as they really are."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
from tests.artifacts.fault_server import FaultServer
from tests.artifacts.fetched import content, model, put
from tests.artifacts.running_agent import OWN_TOKEN, FakeApi, fake_api

from inference_cache_artifacts.agent import command
from inference_cache_artifacts.fetching import fetch
from inference_cache_artifacts.handover.contact import Contact
from inference_cache_artifacts.handover.handing import Handing, on_node
from inference_cache_artifacts.handover.protocol import PROGRESS, read_standing
from inference_cache_artifacts.progress import Silent
from inference_cache_artifacts.request import Request
from inference_cache_artifacts.sources.options import SourceOptions
from inference_cache_artifacts.store import trees, using
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.transfer.pieces import BUFFER_BYTES
from inference_cache_toolkit.processes import Child, free_port, running, start

MODEL = model(big=8 << 20)
SIZE = sum(map(len, MODEL.values()))
BEGIN_SECONDS = 120.0
COMMAND = [sys.executable, "-c", "import sys; from inference_cache_toolkit.main import main; sys.exit(main(sys.argv[1:]))", "agent"]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as served:
        yield served


@contextmanager
def process(folder: Path, api: FakeApi, port: int, *more: str) -> Iterator[Child]:
    (folder / "agents-token").write_text(OWN_TOKEN)
    given = ["--root", folder / "root", "--node", "node-1", "--listen", f"127.0.0.1:{port}", "--api-server", api.url]
    # The machine's disk may be full enough for it to remove what nobody uses any more.
    program = [*COMMAND, *given, "--token-file", folder / "agents-token", "--high-water", "1", *more]
    child = start("agent", [*map(str, program)], folder / "log")
    with running(child, f"http://127.0.0.1:{port}/healthz", BEGIN_SECONDS):
        yield child


def contact(folder: Path, port: int) -> Contact:
    (folder / "token").write_text("token-a")
    return Contact(f"http://127.0.0.1:{port}", folder / "token")


@pytest.mark.services
def test_twenty_pods_get_a_tree_and_the_source_is_read_once(tmp_path: Path, api: FakeApi, web: FaultServer, files: Path) -> None:
    put(files, MODEL)
    web.faults.token = "of-the-source"
    request = Request((web.url,), "v1", options=SourceOptions({"token": "of-the-source"}))
    port = free_port()
    reached, failed = contact(tmp_path, port), list[BaseException]()

    def pod() -> None:
        try:
            on_node(reached, "a.llama", request, Silent())
        except BaseException as error:
            failed.append(error)

    with process(tmp_path, api, port):
        pods = [threading.Thread(target=pod) for _ in range(20)]
        for each in pods:
            each.start()
        for each in pods:
            each.join(300)
    store = Store(tmp_path / "root" / "a")
    tree = trees.find(store, request.tree_name)
    assert failed == []
    assert tree is not None
    assert content(tree) == MODEL
    assert using.users(store, request.tree_name) == {"a.llama"}
    sent = sum(count for path, count in web.sent.items() if path in MODEL)
    assert sent == SIZE
    said = (tmp_path / "log").read_text()
    assert "of-the-source" not in said
    assert "token-a" not in said
    assert f"tree={request.tree_name}" in said


@pytest.mark.services
def test_a_pod_gets_the_files_from_the_agent_and_the_source_is_asked_no_more(
    tmp_path: Path, api: FakeApi, web: FaultServer, files: Path
) -> None:
    put(files, MODEL)
    request, port = Request((web.url,), "v1"), free_port()
    with process(tmp_path, api, port):
        on_node(contact(tmp_path, port), "a.llama", request, Silent())
        before = len(web.requests)
        tree = Handing(contact(tmp_path, port), "a.llama", request, Silent()).bring(Store(tmp_path / "own"), fetch)
    assert content(tree) == MODEL
    assert len(web.requests) == before


@pytest.mark.services
@pytest.mark.parametrize("number", [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGTERM, id="told-to-end")])
def test_a_pod_waits_for_an_agent_that_is_started_again_and_goes_on(
    tmp_path: Path, api: FakeApi, web: FaultServer, files: Path, number: int
) -> None:
    put(files, MODEL)
    request, port = Request((web.url,), "v1"), free_port()
    failed: list[BaseException] = []

    def pod() -> None:
        try:
            on_node(contact(tmp_path, port), "a.llama", request, Silent())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=pod)
    # The source holds the fetch amid its large files until the agent is gone.
    web.faults.stall_after = 2 << 20
    with process(tmp_path, api, port) as child:
        thread.start()
        wait_until(lambda: bytes_there(port, request.tree_name) > 3 << 20)
        there = bytes_there(port, request.tree_name)
        os.kill(child.process.pid, number)
        child.process.wait(30)
    web.heal()
    with process(tmp_path, api, port):
        thread.join(300)
    assert failed == []
    tree = trees.find(Store(tmp_path / "root" / "a"), request.tree_name)
    assert tree is not None
    assert content(tree) == MODEL
    (received,) = re.findall(r"bytes=(\d+)", (tmp_path / "log").read_text())
    assert int(received) <= SIZE - there + 4 * BUFFER_BYTES


def bytes_there(port: int, tree: str) -> int:
    answer = urllib3.request("GET", f"http://127.0.0.1:{port}{PROGRESS.format(namespace='a', tree=tree)}")
    return int(read_standing(answer.data).progress["bytes"] or 0) if answer.status == 200 else 0


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--node", "n", "--api-server", "http://x"], "--root", id="no-root"),
        pytest.param(["--root", "r", "--api-server", "http://x"], "--node", id="no-node"),
        pytest.param(["--root", "r", "--node", "", "--api-server", "http://x"], "--node: it is empty", id="empty-node"),
        pytest.param(["--root", "r", "--node", "n", "--api-server", "x", "--listen", "9182"], "HOST:PORT", id="no-host"),
        pytest.param(["--root", "r", "--node", "n", "--api-server", "x", "--high-water", "85"], "0.85", id="percent"),
        pytest.param(["--root", "r", "--node", "n", "--api-server", "x", "--reserve", "10 apples"], "200Mi", id="bytes"),
        pytest.param(["--root", "r", "--node", "n", "--api-server", "x", "--connections", "0"], "1 to 64", id="connections"),
        pytest.param(["--root", "r", "--node", "n", "--api-server", "x", "--limit-rate", "0"], "too little", id="no-rate"),
    ],
)
def test_a_wrong_command_line_is_told(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.services
@pytest.mark.parametrize("fault", ["root", "port"])
def test_an_agent_that_cannot_begin_says_why(tmp_path: Path, fault: str) -> None:
    (tmp_path / "file").write_text("")
    root = tmp_path / ("file/root" if fault == "root" else "root")
    with socket_taken() as taken:
        arguments = ["--root", str(root), "--node", "n", "--api-server", "http://127.0.0.1:1", "--listen", f"127.0.0.1:{taken}"]
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("inference-cache agent: ")
    assert (str(root) if fault == "root" else str(taken)) in last
    assert "Traceback" not in done.stderr


@contextmanager
def socket_taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_warm_fetch_loads_nothing_of_the_agent() -> None:
    program = (
        "import sys; import inference_cache_artifacts.command;"
        "print([name for name in sys.modules if name.partition('.')[0] in {'aiohttp', 'asyncio', 'urllib3'} or '.agent' in name])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
