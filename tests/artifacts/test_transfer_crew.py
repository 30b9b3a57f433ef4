"""How many threads fetch: more than there are cores only while the cores have nothing to do."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_cache_artifacts.errors import DiskFailed
from inference_cache_artifacts.transfer import crew
from inference_cache_artifacts.transfer.crew import Crew, Idle

WAIT_SECONDS = 60


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WATCH_SECONDS", 0.001)
    monkeypatch.setattr(crew, "_cores", lambda: 2)


class Threads:
    """Of which each works until `leave`."""

    def __init__(self, count: int) -> None:
        self._leave = threading.Event()
        self.all = [threading.Thread(target=self._leave.wait, args=(WAIT_SECONDS,)) for _ in range(count)]

    def leave(self) -> None:
        self._leave.set()

    @property
    def begun(self) -> int:
        return sum(thread.ident is not None for thread in self.all)


def after(looks: int, then: Callable[[], None]) -> Callable[[], None]:
    """What is called at every look, and acts at one of them."""
    seen = iter(range(looks))
    return lambda: None if next(seen, None) is not None else then()


@pytest.mark.parametrize(("share", "fetching", "begun"), [(1.0, True, 9), (0.2, True, 2), (1.0, False, 2)])
def test_more_are_begun_while_cores_are_idle_and_bytes_come(
    share: float, fetching: bool, begun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Idle, "share", lambda _: share)
    threads = Threads(9)
    made = Crew(threads.all, lambda: fetching)
    made.run(after(50, threads.leave))
    assert threads.begun == begun
    made.join()


def test_a_limit_of_threads_is_no_failure_where_one_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Idle, "share", lambda _: 1.0)
    threads, start = Threads(5), threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: start(thread) if threads.begun < 3 else refused())
    made = Crew(threads.all, lambda: True)
    made.run(after(50, threads.leave))
    assert threads.begun == 3


def test_no_thread_at_all_is_a_named_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _: refused())
    with pytest.raises(DiskFailed, match="no thread can be started"):
        Crew(Threads(2).all, lambda: True).run(lambda: None)


def refused() -> None:
    raise RuntimeError("can't start new thread")


def test_the_kernel_says_how_idle_the_machine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(crew, "_STAT", stat)
    stat.write_text("cpu  100 0 100 1000 50 0 0 0 0 0\ncpu0 1 2 3\n")
    idle = Idle()
    stat.write_text("cpu  130 0 120 1040 60 0 0 0 0 0\n")
    assert idle.share() == 0.4
    stat.write_text("cpu  130 0 120 1140 60 0 0 0 0 0\n")
    assert idle.share() == 1.0
    stat.unlink()
    assert idle.share() == 1.0


def test_this_machine_tells_it() -> None:
    assert sum(crew._ticks()) > 0
