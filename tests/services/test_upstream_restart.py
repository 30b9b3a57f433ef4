"""A model server replaced by another model on the same port, behind a sidecar that keeps running: no old answer is ever repeated.

Once with the real vLLM, which also asks for a key; with the stand-in for volume, killed without a word.
"""

import http.client
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from inference_cache_toolkit.processes import Child, answers, free_port, start, stop, wait_for

pytestmark = pytest.mark.services

QUESTIONS = ("How do I reset my password?", "How can I reset my password?", "What does it cost?", "Where are you?", "Who are you?")
"""The second is found by similarity to the first."""
ASKERS = 4
PATIENCE_SECONDS = 150.0
KEY = "s3cret"


@dataclass(frozen=True)
class Told:
    at: float
    """When the request began (monotonic)."""
    question: str
    status: int
    text: str
    hit: bool


def ask(url: str, question: str, key: str | None = "any") -> Told:
    """Status 0 where the connection failed."""
    # Two tiny models may say the same, never with the same probabilities.
    body = {"logprobs": True, "model": "tiny", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 24}
    headers = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
    connection, at = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60), time.monotonic()
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        said = response.read().decode()
        return Told(at, question, response.status, said, "; hit" in response.headers["Cache-Status"])
    except (OSError, http.client.HTTPException):
        return Told(at, question, 0, "", hit=False)
    finally:
        connection.close()


def content(told: Told) -> str:
    choice = json.loads(told.text)["choices"][0]
    return json.dumps([choice["message"]["content"], choice["logprobs"]])


@dataclass
class Asking:
    """Threads that ask all questions again and again."""

    url: str
    key: str | None
    told: list[Told] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self, offset: int) -> None:
        for question in itertools.islice(itertools.cycle(QUESTIONS), offset, None):
            if self._over.is_set():
                return
            told = ask(self.url, question, self.key)
            self.told.append(told)
            if not told.hit:
                # A model server takes its time; a flood of failures would prove no more.
                time.sleep(0.01)

    def since(self, at: float) -> list[Told]:
        return [told for told in list(self.told) if told.at > at]

    def until(self, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not enough():
            assert time.monotonic() < deadline, self.told[-5:]
            time.sleep(0.02)


@contextmanager
def asking(url: str, key: str | None = "any") -> Iterator[Asking]:
    made = Asking(url, key)
    threads = [threading.Thread(target=made.run, args=(number,)) for number in range(ASKERS)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made._over.set()
        for thread in threads:
            thread.join()


def learned(url: str, key: str | None = "any") -> dict[str, str]:
    """What each question is answered, once all are answered from the cache."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not all((told := {question: ask(url, question, key) for question in QUESTIONS})[question].hit for question in QUESTIONS):
        assert time.monotonic() < deadline, told
    return {question: content(each) for question, each in told.items()}


def repeated(told: list[Told], old: dict[str, str]) -> list[Told]:
    return [each for each in told if each.status == 200 and content(each) in old.values()]


@pytest.fixture
def run_standin(tmp_path: Path) -> Iterator[Callable[[int, str], Child]]:
    """`run_standin(port, root)` starts a stand-in; another root is another model."""
    children: list[Child] = []

    def begin(port: int, root: str) -> Child:
        command: list[str | Path] = [Path(sys.executable).with_name("inference-cache"), "standin", "--listen", f"127.0.0.1:{port}"]
        command += ["--root", root, "--first-token", "2ms", "--per-token", "1ms"]
        child = start("stand-in", command, tmp_path / f"standin-{len(children)}.log")
        children.append(child)
        wait_for(child, lambda: answers(f"http://127.0.0.1:{port}/health"), PATIENCE_SECONDS)
        return child

    yield begin
    for child in children:
        stop(child)


def kill(child: Child) -> float:
    """When it was dead."""
    child.process.kill()
    child.process.wait()
    return time.monotonic()


def test_hundreds_of_requests_around_a_killed_and_replaced_server_never_hear_the_old_model(run_sidecar: Any, run_standin: Any) -> None:
    port = free_port()
    server = run_standin(port, "/models/one")
    url = run_sidecar(f"http://127.0.0.1:{port}", "semantic: {embedder: {deadline: 10s}}\n").url
    one = learned(url)
    assert len(set(one.values())) == len(QUESTIONS) - 1
    with asking(url) as herd:
        herd.until(lambda: len(herd.told) > 100)
        dead = kill(server)
        server = run_standin(port, "/models/two")
        herd.until(lambda: sum(told.hit for told in herd.since(dead)) > 200)
        after = herd.since(dead)
        assert repeated(after, one) == []
        two = learned(url)
        # A hit may be noted before the answer that it repeats.
        fresh = {content(told) for told in herd.since(dead) if told.status == 200 and not told.hit}
        assert {content(told) for told in after if told.hit} <= fresh
        assert set(two.values()).isdisjoint(one.values())

        dead = kill(server)
        run_standin(port, "/models/one")
        herd.until(lambda: sum(told.hit for told in herd.since(dead)) > 200)
        assert repeated(herd.since(dead), two) == []
    # The first model is back, and with it what it had said.
    assert learned(url) == one
    assert {told.status for told in herd.told} <= {0, 200, 502}


def test_a_server_replaced_while_nobody_asks_is_noticed_by_the_first_who_does(run_sidecar: Any, run_standin: Any) -> None:
    port = free_port()
    server = run_standin(port, "/models/one")
    url = run_sidecar(f"http://127.0.0.1:{port}", "semantic: {mode: Off}\n").url
    for root in ("/models/two", "/models/three", "/models/four"):
        old = learned(url)
        kill(server)
        server = run_standin(port, root)
        first = [ask(url, question) for question in QUESTIONS]
        assert {told.status for told in first} == {200}
        assert repeated(first, old) == []


def test_a_vllm_that_wants_a_key_and_is_replaced_by_another_model(run_sidecar: Any, start_vllm: Any) -> None:
    handle = start_vllm(seed=1, port=free_port(), extra=("--api-key", KEY))
    url = run_sidecar(handle.server.url, "semantic: {mode: Off}\n").url
    one = learned(url, KEY)
    for key in (None, "wrong"):
        refused = ask(url, QUESTIONS[0], key)
        assert (refused.status, refused.hit) == (401, False)
    with asking(url, KEY) as herd:
        herd.until(lambda: len(herd.told) > 100)
        handle.stop()
        dead = time.monotonic()
        start_vllm(seed=2, port=int(handle.server.url.rpartition(":")[2]), extra=("--api-key", KEY))
        herd.until(lambda: sum(told.hit for told in herd.since(dead)) > 200)
        assert repeated(herd.since(dead), one) == []
    two = learned(url, KEY)
    assert set(two.values()).isdisjoint(one.values())
    assert {told.status for told in herd.told} <= {0, 200, 502}
    for key in (None, "wrong"):
        assert ask(url, QUESTIONS[0], key).status == 401
