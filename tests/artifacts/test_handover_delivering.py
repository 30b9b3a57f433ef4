"""`inference-cache fetch --agent`: when the agent is asked, waited for, and done without."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.artifacts import stores
from tests.artifacts.fake_agent import FakeAgent, fake_agent
from tests.artifacts.fetched import COMMAND, content, litter, manifest, model

from inference_cache_artifacts.command import main
from inference_cache_artifacts.errors import NoSpace
from inference_cache_artifacts.handover import copying, handing
from inference_cache_artifacts.handover.client import Away
from inference_cache_artifacts.handover.patience import Deadline, Patience
from inference_cache_artifacts.handover.protocol import Failure, Standing
from inference_cache_artifacts.handover.showing import Followed
from inference_cache_artifacts.progress import Progress, Silent
from inference_cache_artifacts.request import Request
from inference_cache_artifacts.store import trees, using
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree
from inference_cache_toolkit.processes import free_port

SECONDS = 60.0
URL = "https://user:hunter2@models.example/llama?ref=main&X-Amz-Signature=abcdef"
PLAIN = "https://models.example/llama?ref=main"
NAME = Request((URL,), "v1").tree_name
FILES = model()
PROGRESS = {"bytes": 500, "totalBytes": 1000, "files": 1, "totalFiles": 5, "bytesPerSecond": 100, "etaSeconds": 5, "receivedBytes": 500}


@dataclass
class Direct:
    """A fake of the fetch that asks the sources."""

    requests: list[Request] = field(default_factory=list)

    def __call__(self, request: Request, store: Store, progress: Progress) -> Tree:
        self.requests.append(request)
        store.prepare()
        return stores.published(store, FILES, request.tree_name)


@pytest.fixture
def node(tmp_path: Path) -> Store:
    """The agent's."""
    return stores.new_store(tmp_path / "node")


@pytest.fixture
def pod(tmp_path: Path) -> Store:
    return Store(tmp_path / "pod")


@pytest.fixture
def agent(node: Store) -> Iterator[FakeAgent]:
    with fake_agent(store=node) as agent:
        yield agent


@pytest.fixture
def direct() -> Direct:
    return Direct()


@pytest.fixture
def arguments(agent: FakeAgent, tmp_path: Path) -> list[str]:
    return arguments_for(agent.url, tmp_path)


def arguments_for(url: str, tmp_path: Path) -> list[str]:
    (tmp_path / "token").write_text("a-token")
    asked = [URL, "--version", "v1", "--holder", "llm.faq-bot", "--keep", "0" * 32]
    return [*asked, "--agent", url, "--agent-token", str(tmp_path / "token")]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (handing, copying):
        monkeypatch.setattr(module, "AWAY_SECONDS", 0.3)


def to_node(arguments: list[str], store: Store | None = None, *more: str) -> int:
    where = [] if store is None else ["--store", str(store.root)]
    return main([*arguments, "--node-only", *where, *more], not_asked)


def not_asked(request: Request, store: Store, progress: Progress) -> Tree:
    pytest.fail("the sources were asked")


def has(agent: FakeAgent, node: Store) -> None:
    """The fetch that is asked for succeeds at once."""

    def publish(_: object) -> None:
        stores.published(node, FILES, NAME)
        agent.standing = Standing("done", PROGRESS)

    agent.on_ask = publish


def test_the_agent_is_told_what_to_fetch_and_nothing_that_opens_the_source(agent: FakeAgent, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    agent.standing = Standing("done", PROGRESS)
    (tmp_path / "m.json").write_text(manifest(FILES).text())
    assert to_node(arguments, None, "--manifest", str(tmp_path / "m.json"), "--quiet") == 0
    (ask,) = agent.asks
    assert ask.sources == (PLAIN,)
    assert ask.tree == Request((URL,), "v1", manifest(FILES)).tree_name
    assert (ask.version, ask.manifest, ask.verify, ask.holder, ask.keep) == ("v1", manifest(FILES), True, "llm.faq-bot", ("0" * 32,))
    assert not any(secret in each for each in agent.said for secret in (b"hunter2", b"abcdef"))
    assert agent.tokens == {"a-token"}


def test_what_the_node_has_is_asked_of_nobody_and_not_marked(
    agent: FakeAgent, arguments: list[str], node: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = stores.published(node, FILES, NAME)
    assert to_node(arguments, node, "--json") == 0
    assert agent.requests == []
    assert using.users(node, NAME) == frozenset()
    assert last_line(capsys).items() >= {"event": "done", "tree": NAME, "path": str(tree.files)}.items()


HEAVY = "boto3 botocore urllib3 tqdm awscrt ssl asyncio concurrent.futures http.client"


@pytest.mark.parametrize("more", [["--node-only"], []], ids=["the node's store", "the pod's own"])
def test_what_is_there_loads_nothing_that_speaks_to_anybody(agent: FakeAgent, arguments: list[str], node: Store, more: list[str]) -> None:
    stores.published(node, FILES, NAME)
    code = (
        "import sys; from inference_cache_toolkit.main import main; status = main(sys.argv[2:]); "
        "print([each for each in sys.argv[1].split() if each in sys.modules]); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, HEAVY, "fetch", *arguments, *more, "--store", str(node.root), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
    assert done.stdout == "[]\n"
    assert agent.requests == []


def test_what_comes_while_it_is_waited_for_is_there(agent: FakeAgent, arguments: list[str], node: Store) -> None:
    has(agent, node)
    assert to_node(arguments, node) == 0
    assert agent.left == []
    assert using.users(node, NAME) == frozenset()


def test_a_store_that_is_not_the_agents_is_an_error(
    agent: FakeAgent, arguments: list[str], pod: Store, node: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    has(agent, node)
    assert to_node(arguments, pod) == 1
    assert "--store is not the folder that the agent keeps" in capsys.readouterr().err


def test_the_agents_progress_is_shown(agent: FakeAgent, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent.standing = Standing("running", PROGRESS)
    shown = tmp_path / "progress.json"
    done = Standing("done", PROGRESS | {"bytes": 1000})
    with Later(lambda: setattr(agent, "standing", done), lambda: shown.exists() and json.loads(shown.read_text())["bytes"] == 500):
        assert to_node(arguments, None, "--json", "--progress-file", str(shown)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wanted = {"event": "progress", "bytes": 500, "totalBytes": 1000, "files": 1, "totalFiles": 5, "receivedBytes": 500}
    assert any(line.items() >= wanted.items() for line in lines)
    assert (lines[-1]["event"], lines[-1]["tree"], lines[-1]["bytes"]) == ("done", NAME, 1000)


class Later:
    """Does something in a thread when something is so."""

    def __init__(self, act: Callable[[], None], true: Callable[[], bool]) -> None:
        self._act, self._true = act, true
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        until(self._true)
        self._act()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("node_only", [True, False], ids=["to the node", "to the pod"])
@pytest.mark.parametrize("reason", ["Corrupt", "Missing", "Forbidden", "Unreachable", "Unverifiable"])
def test_the_verdict_of_the_agent_on_the_files_is_final(
    agent: FakeAgent, arguments: list[str], pod: Store, tmp_path: Path, direct: Direct, reason: str, node_only: bool
) -> None:
    agent.standing = Standing("failed", {}, Failure(reason, "a.bin: it is so", "a.bin"))
    more = ["--node-only"] if node_only else ["--store", str(pod.root)]
    assert main([*arguments, *more, "--termination-message", str(tmp_path / "log")], direct) == 1
    assert json.loads((tmp_path / "log").read_text()) == {"reason": reason, "file": "a.bin", "message": "a.bin: it is so"}
    assert direct.requests == []
    assert agent.left == []


def test_a_request_that_makes_no_sense_is_wrong_usage(agent: FakeAgent, arguments: list[str]) -> None:
    agent.standing = Standing("failed", {}, Failure("BadRequest", "no such thing"))
    assert to_node(arguments) == 2


def test_the_files_come_from_the_agent_into_the_pods_store(
    agent: FakeAgent, arguments: list[str], node: Store, pod: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    has(agent, node)
    assert main([*arguments, "--store", str(pod.root), "--json"], not_asked) == 0
    tree = trees.find(pod, NAME)
    assert tree is not None
    assert content(tree) == FILES
    assert using.users(pod, NAME) == {"llm.faq-bot"}
    done = last_line(capsys)
    assert (done["event"], done["bytes"], done["files"], done["totalFiles"]) == ("done", manifest(FILES).size, 5, 5)
    assert agent.served <= 1.05 * manifest(FILES).size


def test_the_token_may_change_amid_the_files(agent: FakeAgent, arguments: list[str], node: Store, pod: Store, tmp_path: Path) -> None:
    stores.published(node, FILES, NAME)
    agent.token = "a-token"
    seen: list[str] = []

    def rotate(path: str) -> None:
        seen.append(path)
        if len(seen) == 2:
            (tmp_path / "token").write_text("another-token")
            agent.token = "another-token"

    agent.on_file = rotate
    assert main([*arguments, "--store", str(pod.root), "--connections", "1"], not_asked) == 0
    assert agent.tokens == {"a-token", "another-token"}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [500, 503, 401, 404])
def test_an_agent_in_trouble_is_done_without(agent: FakeAgent, arguments: list[str], pod: Store, direct: Direct, status: int) -> None:
    agent.status = status
    assert main([*arguments, "--store", str(pod.root)], direct) == 0
    (request,) = direct.requests
    assert (request.sources, request.tree_name) == ((URL,), NAME)
    assert using.users(pod, NAME) == {"llm.faq-bot"}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("reason", ["DiskFailed", "NoSpace", "LeaseLost", "Failed"])
def test_an_agent_whose_disk_fails_is_done_without(
    agent: FakeAgent, arguments: list[str], pod: Store, direct: Direct, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.standing = Standing("failed", {}, Failure(reason, "the disk is broken"))
    assert main([*arguments, "--store", str(pod.root), "--json"], direct) == 0
    assert len(direct.requests) == 1
    assert '"event": "agent-away"' in capsys.readouterr().out


@pytest.mark.usefixtures("impatient")
def test_an_agent_that_is_not_there_is_done_without(tmp_path: Path, pod: Store, direct: Direct) -> None:
    arguments = arguments_for(f"http://127.0.0.1:{free_port()}", tmp_path)
    assert main([*arguments, "--store", str(pod.root)], direct) == 0
    assert len(direct.requests) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [503, 404, 401])
def test_an_agent_that_goes_away_amid_the_files_is_done_without(
    agent: FakeAgent, arguments: list[str], node: Store, pod: Store, direct: Direct, status: int
) -> None:
    stores.published(node, FILES, NAME)
    agent.on_file = lambda path: setattr(agent, "status", status)
    assert main([*arguments, "--store", str(pod.root), "--connections", "1"], direct) == 0
    assert len(direct.requests) == 1
    assert 0 < agent.served < manifest(FILES).size


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"etag": '"another"'}, id="of another name"),
        pytest.param({"length": 5}, id="shorter"),
        pytest.param({"cuts": [50_000] * 50}, id="cut again and again"),
    ],
)
def test_files_that_are_not_what_the_manifest_says_are_fetched_from_the_sources(
    agent: FakeAgent, arguments: list[str], node: Store, pod: Store, direct: Direct, wrong: dict[str, object]
) -> None:
    stores.published(node, FILES, NAME)
    for name, value in wrong.items():
        setattr(agent, name, value)
    assert main([*arguments, "--store", str(pod.root)], direct) == 0
    assert len(direct.requests) == 1
    assert list(pod.partials.iterdir()) == []


def test_a_file_that_breaks_off_is_begun_again(
    agent: FakeAgent, arguments: list[str], node: Store, pod: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    stores.published(node, FILES, NAME)
    agent.cuts = [0, 1000, 2_000_000]
    assert main([*arguments, "--store", str(pod.root), "--json"], not_asked) == 0
    tree = trees.find(pod, NAME)
    assert tree is not None
    assert content(tree) == FILES
    assert litter(pod) == []
    assert capsys.readouterr().out.count('"retry"') == 3


def test_what_the_pod_has_is_not_read_from_the_agent(agent: FakeAgent, arguments: list[str], node: Store, pod: Store) -> None:
    stores.published(node, FILES, NAME)
    pod.prepare()
    big = FILES["model-00001-of-00002.safetensors"]
    stores.adopt(pod, big)
    (pod.partials / f"{NAME}-0.data").write_bytes(b"left by one that was killed")
    assert main([*arguments, "--store", str(pod.root)], not_asked) == 0
    tree = trees.find(pod, NAME)
    assert tree is not None
    assert content(tree) == FILES
    assert agent.served == manifest(FILES).size - len(big)
    assert litter(pod) == []


def test_processes_with_one_store_read_the_agent_once(agent: FakeAgent, arguments: list[str], node: Store, pod: Store) -> None:
    stores.published(node, FILES, NAME)
    command = [
        sys.executable,
        "-m",
        "inference_cache_toolkit",
        "fetch",
        *arguments,
        "--store",
        str(pod.root),
        "--limit-rate",
        "4Mi",
        "--quiet",
    ]
    started = [subprocess.Popen(command) for _ in range(3)]
    assert [each.wait(SECONDS) for each in started] == [0, 0, 0]
    assert agent.served == manifest(FILES).size
    assert litter(pod) == []


def test_a_signal_amid_the_files_ends_it_soon_and_leaves_nothing_locked(
    agent: FakeAgent, arguments: list[str], node: Store, pod: Store
) -> None:
    stores.published(node, FILES, NAME)
    command = [sys.executable, "-c", COMMAND, "fetch", *arguments, "--store", str(pod.root), "--limit-rate", "100Ki"]
    with subprocess.Popen([*command, "--quiet"], stderr=subprocess.PIPE, text=True) as process:
        until(lambda: agent.served > 0)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=SECONDS)
    # What hangs ends without a word.
    assert (process.returncode, "Interrupted" in error) == (143, True)
    assert list(pod.leases.iterdir()) == []
    assert list(pod.partials.iterdir()) == []


def test_a_full_disk_of_the_pod_is_no_trouble_of_the_agents(
    agent: FakeAgent, arguments: list[str], node: Store, pod: Store, direct: Direct, capsys: pytest.CaptureFixture[str]
) -> None:
    stores.published(node, FILES, NAME)
    assert main([*arguments, "--store", str(pod.root), "--reserve", "1000Ti"], direct) == 1
    assert NoSpace.reason in capsys.readouterr().err
    assert direct.requests == []


def test_an_agent_that_comes_late_is_waited_for(node: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port, done = free_port(), threading.Event()

    def begin_late() -> None:
        until(lambda: "waiting" in capsys.readouterr().out)
        with fake_agent(port, node) as agent:
            has(agent, node)
            assert done.wait(SECONDS)

    thread = threading.Thread(target=begin_late)
    thread.start()
    try:
        assert to_node([*arguments_for(f"http://127.0.0.1:{port}", tmp_path), "--json"], node) == 0
    finally:
        done.set()
        thread.join()


def test_waiting_ends_with_the_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = arguments_for(f"http://127.0.0.1:{free_port()}", tmp_path)
    assert to_node([*arguments, "--timeout", "300ms"]) == 1
    assert "TimedOut: it took longer than 0.3 s: the agent at http://127.0.0.1" in capsys.readouterr().err


def test_a_fetch_that_takes_too_long_is_left(agent: FakeAgent, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert to_node([*arguments, "--timeout", "300ms"]) == 1
    assert "TimedOut" in capsys.readouterr().err
    until(lambda: agent.left == ["fetch-0"])


@pytest.mark.parametrize("node_only", [True, False], ids=["to the node", "to the pod"])
def test_an_agent_that_starts_again_is_asked_again(
    agent: FakeAgent, arguments: list[str], node: Store, pod: Store, node_only: bool
) -> None:
    def forget() -> None:
        has(agent, node)
        agent.forget()

    where = ["--node-only", "--store", str(node.root)] if node_only else ["--store", str(pod.root)]
    with Later(forget, lambda: any(each.startswith("GET /v1/fetches/fetch-0") for each in agent.requests)):
        assert main([*arguments, *where], not_asked) == 0
    assert len(agent.asks) == 2


def test_a_fetch_that_the_agent_gave_up_is_asked_for_again(agent: FakeAgent, arguments: list[str], node: Store) -> None:
    agent.standing = Standing("failed", {}, Failure("Abandoned", "nobody was heard of"))
    with Later(lambda: has(agent, node), lambda: len(agent.asks) == 1):
        assert to_node(arguments, node) == 0
    assert len(agent.asks) >= 2


def test_an_agent_that_refuses_the_token_is_not_waited_for(
    agent: FakeAgent, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    agent.token = "another"
    assert to_node(arguments) == 1
    assert "Forbidden: the agent at " in capsys.readouterr().err


def test_a_token_that_cannot_be_read_is_named(
    agent: FakeAgent, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").unlink()
    assert to_node(arguments) == 2
    assert f"--agent-token {tmp_path / 'token'} cannot be read: No such file" in capsys.readouterr().err


def test_a_source_that_makes_no_sense_is_said_here(agent: FakeAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["http://models.example/", *arguments_for(agent.url, tmp_path)[1:]]
    assert to_node(arguments) == 2
    assert "plain HTTP is refused" in capsys.readouterr().err
    assert agent.asks == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_soon_and_the_agent_is_told(agent: FakeAgent, arguments: list[str], number: signal.Signals) -> None:
    command = [sys.executable, "-c", COMMAND, "fetch", *arguments, "--node-only", "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: "GET /v1/fetches/fetch-0" in agent.requests)
        process.send_signal(number)
        _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number
    # What hangs ends without a word.
    assert "Interrupted" in error
    until(lambda: agent.left == ["fetch-0"])


def test_files_that_were_told_once_are_not_counted_twice() -> None:
    told: list[str] = []

    class Told(Silent):
        def verified(self, path: str, size: int) -> None:
            told.append(path)

    followed = Followed(Told())
    followed.show(PROGRESS | {"files": 2})
    for path in ("a", "b", "c"):
        followed.verified(path, 1)
    assert told == ["", "", "c"]


def test_patience_ends_after_the_time_without_an_answer() -> None:
    now = [0.0]
    waiting = Patience(Deadline(None), Silent(), 10.0, clock=lambda: now[0], sleep=lambda seconds: None)
    for now[0] in (0.0, 9.0):
        waiting.wait(Away("away"))
    waiting.well()
    for now[0] in (12.0, 22.0):
        waiting.wait(Away("away"))
    now[0] = 22.1
    with pytest.raises(Away):
        waiting.wait(Away("away"))


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return read


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--agent", "http://a:1", "--holder", "b", "--store", "c"], "need each other", id="no-token"),
        pytest.param(["--agent-token", "t", "--holder", "b", "--store", "c"], "need each other", id="no-agent"),
        pytest.param(["--agent", "http://a:1", "--agent-token", "t", "--to", "c"], "--agent needs --holder", id="to-a-folder"),
        pytest.param(["--agent", "http://a:1", "--agent-token", "t", "--holder", "b"], "--holder needs --store", id="no-store"),
        pytest.param(["--node-only", "--holder", "b"], "--node-only needs --agent", id="no-agent-for-the-node"),
        pytest.param(["--agent", "ftp://a", "--agent-token", "t", "--holder", "b"], "'ftp://a' is not like http://HOST:PORT", id="url"),
        pytest.param(["--agent", "http://u:p@a", "--agent-token", "t", "--holder", "b"], "is not like http://HOST:PORT", id="user"),
    ],
)
def test_flags_that_do_not_go_together_are_named(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([URL, *arguments], not_asked)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
