"""`inference-cache demo` as a newcomer runs it: in a process of its own, ended by itself or by a signal."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from inference_cache_toolkit.processes import free_port

PROGRAM = Path(sys.executable).with_name("inference-cache")
ROW = re.compile(r"^(\S.*?) {2,}(\S.*?) {2,}((?:model|cache)\b.*?) +[\d.]+ m?s *$", re.MULTILINE)


def command(*arguments: str) -> list[str]:
    ports = [f"{flag}={free_port()}" for flag in ("--port", "--admin-port", "--standin-port")]
    return [str(PROGRAM), "demo", *ports, *arguments]


def demo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=400)


def sources(printed: str) -> dict[tuple[str, str], str]:
    """Where each question was answered from, by its title and text."""
    return {(title, question): source for title, question, source in rows(printed)}


def rows(printed: str) -> list[tuple[str, str, str]]:
    """Title, question and source of each answer."""
    return [(row[1], row[2], row[3]) for row in ROW.finditer(printed)]


def test_demo_shows_hits_of_both_kinds_and_every_refusal() -> None:
    run = demo("--once")
    assert run.returncode == 0, run.stderr
    found = sources(run.stdout)
    assert found["a new question", "How do I reset my password?"] == "model"
    assert found["the same again", "How do I reset my password?"] == "cache, same question"
    assert found["written otherwise", "how do I reset my password"] == "cache, same question"
    assert found["the same, streamed", "How do I reset my password?"] == "cache, same question"
    assert found["in other words", "How can I reset my password?"].startswith("cache, similar question (0.9")
    assert found["its opposite", "Does the warranty not cover water damage?"].startswith("model, refused: negation")
    assert found["another number", "Does version 3.1 support single sign-on?"].startswith("model, refused: number")
    assert found["the other direction", "How do I convert EUR to USD?"].startswith("model, refused: ")
    assert found["rephrased in the same", "What does it cost a month?"].startswith("cache, similar question")
    assert found["the same in another", "What does it cost per month?"] == "model"
    herd = [source for title, _, source in rows(run.stdout) if title.startswith("five callers at once")]
    shared = herd.count("model, shared with another caller")
    # Who asks late, as on a machine that stands still for a moment, is given the answer from the cache.
    assert (herd.count("model"), shared + herd.count("cache, same question")) == (1, 4)
    assert shared > 0
    assert "20 answers, 10 calls of the model, 10 saved." in run.stdout


def test_demo_with_two_sidecars_shows_that_they_share_answers_and_flushes() -> None:
    run = demo("--once", "--replicas", "2")
    assert run.returncode == 0, run.stderr
    before, _, after = run.stdout.partition("version v1 flushed at sidecar 1: 2 entries")
    assert re.search(r"sidecar 2 +the same at another .* cache, same question ", before)
    assert re.search(r"sidecar 2 +in other words there .* cache, similar question ", before)
    assert re.search(r"sidecar 1 +a new question .* model ", after)
    assert re.search(r"sidecar 2 +a new question .* model ", after)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(signal.SIGINT, "Ctrl-C", id="SIGINT after the questions"),
        pytest.param(signal.SIGTERM, "the same again", id="SIGTERM amid them"),
    ],
)
def test_demo_stays_until_a_signal_and_takes_its_children_with_it(number: signal.Signals, words: str) -> None:
    with subprocess.Popen(command(), stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            _until(running.stdout, words)
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
            running.send_signal(number)
            assert running.wait(100) == 0
        finally:
            running.kill()
    assert children
    assert [child for child in children if Path(f"/proc/{child}").exists()] == []


def _until(stream: IO[str], words: str) -> None:
    assert any(words in line for line in stream), f"the demo ended without saying {words!r}"


def test_demo_against_the_real_vllm_uses_its_first_model(vllm: object) -> None:
    run = demo("--once", "--upstream", vllm.url)  # type: ignore[attr-defined]  # the fixture's type lives in conftest
    assert run.returncode == 0, run.stderr
    assert sources(run.stdout)["the same again", "How do I reset my password?"] == "cache, same question"


def test_demo_says_so_where_nobody_is_behind_it() -> None:
    run = demo("--once", "--upstream", f"http://127.0.0.1:{free_port()}")
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
