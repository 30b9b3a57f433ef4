"""`inference-cache fetch` beside `inference-cache agent`: what the source sends, what the agent learns, what each of them survives."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.artifacts.fault_server import FaultServer
from tests.artifacts.fetched import COMMAND, content, litter, manifest, model, put
from tests.artifacts.real_agent import RealAgent, real_agent
from tests.artifacts.seaweedfs import SECRET, SeaweedFS

from inference_cache_artifacts.request import Request
from inference_cache_artifacts.store import trees, using
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree

pytestmark = [pytest.mark.services, pytest.mark.slow]
SECONDS = 300.0
SIZE = 24 << 20
FILES = model(big=SIZE)
BYTES = sum(map(len, FILES.values()))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RealAgent]:
    with real_agent(tmp_path) as agent:
        yield agent


class Pods:
    """Commands as pods of a namespace run them."""

    def __init__(self, agent: RealAgent, folder: Path, stack: ExitStack) -> None:
        self._agent = agent
        self._folder = folder
        self._stack = stack

    def begin(self, url: str, *more: object, namespace: str = "llm") -> "subprocess.Popen[str]":
        token = self._folder / f"token-{namespace}"
        token.write_text(f"token-of-{namespace}")
        asked = [url, "--version", "v1", "--holder", f"{namespace}.faq-bot", "--agent", self._agent.url, "--agent-token", token]
        command = [sys.executable, "-c", COMMAND, "fetch", *asked, *more, "--json"]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process

    def run(self, url: str, *more: object, namespace: str = "llm") -> list[dict[str, object]]:
        return ended(self.begin(url, *more, namespace=namespace))


@pytest.fixture
def pods(agent: RealAgent, tmp_path: Path) -> Iterator[Pods]:
    with ExitStack() as stack:
        yield Pods(agent, tmp_path, stack)


def ended(process: "subprocess.Popen[str]", status: int = 0) -> list[dict[str, object]]:
    output, error = process.communicate(timeout=SECONDS)
    assert process.returncode == status, error
    return [json.loads(line) for line in output.splitlines()]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def only_tree(store: Store) -> Tree:
    (name,) = trees.names(store)
    found = trees.find(store, name)
    assert found is not None
    return found


def test_a_node_is_filled_once_and_each_pod_only_looks(web: FaultServer, files: Path, agent: RealAgent, pods: Pods) -> None:
    put(files, FILES)
    node = agent.store("llm")
    started = [pods.begin(web.url, "--node-only", "--store", node.root) for _ in range(3)]
    paths = {str(ended(each)[-1]["path"]) for each in started}
    tree = only_tree(node)
    assert paths == {str(tree.files)}
    assert content(tree) == FILES
    assert web.sent_bytes <= 1.05 * BYTES
    assert using.users(node, tree.name) == {"llm.faq-bot"}
    web.forget()
    before = len(agent.got)
    assert pods.run(web.url, "--node-only", "--store", node.root)[-1]["event"] == "done"
    assert (web.requests, len(agent.got)) == ([], before)


def test_pods_with_stores_of_their_own_read_the_source_once(
    web: FaultServer, files: Path, agent: RealAgent, pods: Pods, tmp_path: Path
) -> None:
    put(files, FILES)
    stores = [Store(tmp_path / f"pod-{number}") for number in range(3)]
    started = [pods.begin(web.url, "--store", store.root) for store in stores]
    for each in started:
        ended(each)
    assert [content(only_tree(store)) == FILES for store in stores] == [True] * 3
    assert [litter(store) for store in stores] == [[]] * 3
    assert web.sent_bytes <= 1.05 * BYTES
    web.forget()
    assert pods.run(web.url, "--store", tmp_path / "late")[-1]["bytes"] == BYTES
    assert web.requests == []


def test_a_node_is_filled_ahead(web: FaultServer, files: Path, agent: RealAgent, pods: Pods) -> None:
    put(files, FILES)
    lines = pods.run(web.url, "--node-only")
    assert (lines[-1]["event"], lines[-1]["tree"]) == ("done", only_tree(agent.store("llm")).name)
    assert lines[-1]["bytes"] == BYTES


def test_namespaces_have_trees_of_their_own(web: FaultServer, files: Path, agent: RealAgent, pods: Pods) -> None:
    put(files, FILES)
    for namespace in ("llm", "other"):
        pods.run(web.url, "--node-only", namespace=namespace)
        assert content(only_tree(agent.store(namespace))) == FILES
    assert web.sent_bytes > 1.9 * BYTES


def test_the_secret_reaches_the_source_and_never_the_agent(
    web: FaultServer, files: Path, agent: RealAgent, pods: Pods, tmp_path: Path
) -> None:
    put(files, FILES)
    put(tmp_path / "secret", {"token": b"swordfish"}, with_manifest=False)
    web.faults.token = "swordfish"
    pods.run(web.url, "--node-only", "--credentials-dir", tmp_path / "secret")
    assert content(only_tree(agent.store("llm"))) == FILES
    assert b"swordfish" not in agent.got
    assert len(agent.got) > BYTES


def test_what_opens_a_url_never_reaches_the_agent(web: FaultServer, files: Path, agent: RealAgent, pods: Pods) -> None:
    put(files, FILES)
    web.faults.query = "X-Amz-Signature=swordfish"
    pods.run(f"{web.url}?X-Amz-Signature=swordfish", "--node-only")
    assert content(only_tree(agent.store("llm"))) == FILES
    assert b"swordfish" not in agent.got


def test_a_bucket_is_read_with_the_pods_keys_and_verified_by_its_checksums(
    s3: SeaweedFS, agent: RealAgent, pods: Pods, tmp_path: Path
) -> None:
    s3.bucket("handover")
    for path, each in FILES.items():
        s3.put("handover", f"llama/{path}", each, ChecksumAlgorithm="SHA256")
    put(tmp_path / "secret", {name: value.encode() for name, value in s3.credentials.items()}, with_manifest=False)
    pods.run("s3://handover/llama", "--store", tmp_path / "pod", "--credentials-dir", tmp_path / "secret")
    assert content(only_tree(Store(tmp_path / "pod"))) == FILES
    assert SECRET.encode() not in agent.got


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"cut_after": 3 << 20}, id="every answer is cut"),
        pytest.param({"refuse_share": 0.3}, id="a storm of 503"),
        pytest.param({"refuse_next": 3, "retry_after": "1"}, id="three of 503 that say when"),
    ],
)
def test_what_a_source_does_to_its_readers_costs_a_twentieth_at_most(
    web: FaultServer, files: Path, agent: RealAgent, pods: Pods, fault: dict[str, object]
) -> None:
    put(files, FILES)
    for name, value in fault.items():
        setattr(web.faults, name, value)
    pods.run(web.url, "--node-only")
    assert content(only_tree(agent.store("llm"))) == FILES
    assert web.sent_bytes <= 1.05 * BYTES


def test_a_corrupt_source_is_said_with_its_file(web: FaultServer, files: Path, agent: RealAgent, pods: Pods, tmp_path: Path) -> None:
    put(files, FILES)
    web.faults.flip = {"nested/tokenizer.json": 500}
    process = pods.begin(web.url, "--store", tmp_path / "pod", "--termination-message", tmp_path / "log")
    ended(process, 1)
    told = json.loads((tmp_path / "log").read_text())
    assert (told["reason"], told["file"]) == ("Corrupt", "nested/tokenizer.json")
    assert trees.names(agent.store("llm")) == []


def test_a_secret_that_the_source_refuses_is_forbidden(web: FaultServer, files: Path, agent: RealAgent, pods: Pods, tmp_path: Path) -> None:
    put(files, FILES)
    web.faults.token = "another"
    process = pods.begin(web.url, "--store", tmp_path / "pod", "--termination-message", tmp_path / "log")
    ended(process, 1)
    assert json.loads((tmp_path / "log").read_text())["reason"] == "Forbidden"


def test_without_an_agent_the_pod_fetches_for_itself(web: FaultServer, files: Path, agent: RealAgent, pods: Pods, tmp_path: Path) -> None:
    put(files, FILES)
    agent.end()
    lines = pods.run(web.url, "--store", tmp_path / "pod")
    assert "agent-away" in {each["event"] for each in lines}
    assert content(only_tree(Store(tmp_path / "pod"))) == FILES


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_that_starts_again_amid_a_fetch_goes_on(
    web: FaultServer, files: Path, agent: RealAgent, pods: Pods, number: signal.Signals
) -> None:
    put(files, FILES)
    process = pods.begin(web.url, "--node-only", "--limit-rate", "8Mi")
    until(lambda: web.sent_bytes > BYTES // 4)
    agent.end(number)
    agent.start()
    ended(process)
    assert content(only_tree(agent.store("llm"))) == FILES
    # What was on its way is lost: of each connection what the kernel holds on both ways, megabytes where the source is far ahead.
    assert web.sent_bytes <= 1.5 * BYTES


def test_a_pod_that_dies_leaves_the_rest_to_the_next(web: FaultServer, files: Path, agent: RealAgent, pods: Pods) -> None:
    put(files, FILES)
    first = pods.begin(web.url, "--node-only", "--limit-rate", "8Mi")
    until(lambda: web.sent_bytes > BYTES // 4)
    second = pods.begin(web.url, "--node-only")
    until(lambda: sum(b"POST /v1/fetches" in each for each in agent.proxy.got) >= 2)
    first.kill()
    ended(second)
    assert content(only_tree(agent.store("llm"))) == FILES
    assert web.sent_bytes <= 1.5 * BYTES


def test_a_pod_that_is_ended_lets_go(web: FaultServer, files: Path, agent: RealAgent, pods: Pods) -> None:
    put(files, FILES)
    process = pods.begin(web.url, "--node-only", "--limit-rate", "1Mi")
    until(lambda: web.sent_bytes > 1 << 20)
    process.send_signal(signal.SIGTERM)
    # What hangs ends without a word.
    assert ended(process, 143)[-1]["reason"] == "Interrupted"
    until(lambda: b"DELETE" in agent.got)


def test_the_token_may_change_amid_the_files(web: FaultServer, files: Path, agent: RealAgent, pods: Pods, tmp_path: Path) -> None:
    put(files, FILES)
    # The source holds the fetch until the token is another one.
    web.faults.stall_after = 1 << 20
    process = pods.begin(web.url, "--store", tmp_path / "pod")
    until(lambda: web.sent_bytes > 1 << 20)
    # As kubelet does it: nobody reads a part of it.
    (tmp_path / "token-next").write_text("token-of-llm/2")
    (tmp_path / "token-next").replace(tmp_path / "token-llm")
    web.heal()
    ended(process)
    assert b"Bearer token-of-llm/2" in agent.got
    assert content(only_tree(Store(tmp_path / "pod"))) == FILES


def test_the_name_of_a_tree_is_the_same_by_either_way(web: FaultServer, files: Path, agent: RealAgent, pods: Pods, tmp_path: Path) -> None:
    made = put(files, FILES)
    (tmp_path / "m.json").write_text(made.text())
    pods.run(web.url, "--store", tmp_path / "pod", "--manifest", tmp_path / "m.json")
    name = Request((web.url,), "v1", manifest(FILES)).tree_name
    assert [only_tree(Store(tmp_path / "pod")).name, only_tree(agent.store("llm")).name] == [name, name]
