import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.artifacts.stores import NAME, OTHER, litter, new_store

from inference_cache_artifacts.store import lease_files, leases
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.leases import Lease, LeaseLost, Timing

HOLDER = Path(__file__).with_name("lease_holder.py")
FOREIGN = "11111111-2222-3333-4444-555555555555"
QUICK = Timing(beat_seconds=0.1, ttl_seconds=1.5)
DEADLINE_SECONDS = 60.0


class Process:
    def __init__(self, store: Store, *options: str) -> None:
        command = [sys.executable, str(HOLDER), str(store.root), NAME, *options]
        self.running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def says(self) -> str:
        assert self.running.stdout is not None
        return self.running.stdout.readline().strip()

    def ask(self, line: str) -> None:
        assert self.running.stdin is not None
        self.running.stdin.write(f"{line}\n")

    def send(self, number: int) -> None:
        self.running.send_signal(number)

    def stopped(self) -> None:
        """Returns when it stands still."""
        self.send(signal.SIGSTOP)
        os.waitpid(self.running.pid, os.WUNTRACED)

    def end(self) -> None:
        with suppress(BrokenPipeError), self.running:
            self.running.kill()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


@pytest.fixture
def holder(store: Store) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start(*options: str) -> Process:
        processes.append(Process(store, *options))
        return processes[-1]

    yield start
    for each in processes:
        each.end()


@contextmanager
def lease_of(store: Store, seconds: float = DEADLINE_SECONDS, timing: Timing = QUICK) -> Iterator[Lease | None]:
    """None where it was not had in that time."""
    end = time.monotonic() + seconds
    with leases.waiting(store, NAME, until=lambda: time.monotonic() > end, timing=timing) as lease:
        yield lease


def quick(boot: str = FOREIGN) -> list[str]:
    return ["--boot", boot, "--beat", str(QUICK.beat_seconds), "--ttl", str(QUICK.ttl_seconds)]


def test_a_lease_is_had_at_once_and_leaves_nothing(store: Store):
    with lease_of(store) as lease:
        assert lease is not None
        assert lease.taken_over == "no"
        lease.check()
        assert len(litter(store)) == 1
    assert litter(store) == []


def test_leases_of_two_names_know_nothing_of_each_other(store: Store):
    with lease_of(store) as one, leases.waiting(store, OTHER, until=lambda: False) as two:
        assert one is not None
        assert two is not None
        one.check()
        two.check()


@pytest.mark.slow
def test_a_second_waits_until_the_first_has_released(store: Store, holder: Callable[..., Process]):
    first = holder()
    assert first.says() == "held no"
    with lease_of(store, 1.0) as lease:
        assert lease is None
    first.ask("release")
    with lease_of(store) as lease:
        assert lease is not None
        assert lease.taken_over == "no"


def test_who_waits_goes_when_there_is_nothing_left_to_do(store: Store, holder: Callable[..., Process]):
    assert holder().says() == "held no"
    over = threading.Event()
    threading.Timer(0.3, over.set).start()
    with leases.waiting(store, NAME, until=over.is_set) as lease:
        assert lease is None


def test_nothing_left_to_do_counts_with_the_lease_in_hand_too(store: Store):
    answers = iter([False, True])
    with leases.waiting(store, NAME, until=lambda: next(answers)) as lease:
        assert lease is None
    assert litter(store) == []


def test_a_question_that_fails_leaves_no_lease(store: Store):
    answers = {True: False}
    with pytest.raises(KeyError), leases.waiting(store, NAME, until=lambda: answers.pop(True)):
        pass
    assert litter(store) == []


def test_a_killed_holder_is_noticed_at_once(store: Store, holder: Callable[..., Process]):
    """Though beats would keep it for hours."""
    first = holder("--ttl", "3600")
    assert first.says() == "held no"
    first.send(signal.SIGKILL)
    with lease_of(store, timing=Timing(ttl_seconds=3600)) as lease:
        assert lease is not None
        assert lease.taken_over == "dead"
        assert lease.number == 2
        lease.check()
    assert litter(store) == []


@pytest.mark.slow
def test_a_stopped_holder_under_the_same_kernel_holds_on(store: Store, holder: Callable[..., Process]):
    """However many beats are missing: it may go on in any moment."""
    first = holder("--beat", "0.1")
    assert first.says() == "held no"
    first.stopped()
    with lease_of(store, 1.5, Timing(0.05, 0.1)) as lease:
        assert lease is None
    first.send(signal.SIGCONT)
    first.ask("check")
    assert first.says() == "held"


@pytest.mark.slow
def test_a_silent_holder_under_another_kernel_is_given_up_and_learns_of_it(store: Store, holder: Callable[..., Process]):
    first = holder(*quick())
    assert first.says() == "held no"
    first.stopped()
    with lease_of(store) as lease:
        assert lease is not None
        assert lease.taken_over == "silent"
        first.send(signal.SIGCONT)
        first.ask("check")
        assert first.says() == "lost"
        lease.check()
    first.ask("check")
    assert first.says() == "lost"


@pytest.mark.slow
def test_a_holder_under_another_kernel_that_beats_is_left_alone(store: Store, holder: Callable[..., Process]):
    # Longer than a busy machine keeps it from beating.
    patient = Timing(QUICK.beat_seconds, 8.0)
    first = holder("--boot", FOREIGN, "--beat", str(patient.beat_seconds), "--ttl", str(patient.ttl_seconds))
    assert first.says() == "held no"
    with lease_of(store, 1.5 * patient.ttl_seconds, patient) as lease:
        assert lease is None
    first.ask("check")
    assert first.says() == "held"


@pytest.mark.slow
@pytest.mark.parametrize("mtime", [pytest.param(0, id="1970"), pytest.param(1 << 32, id="2106")])
def test_clocks_count_neither_for_nor_against_a_holder(store: Store, holder: Callable[..., Process], mtime: int):
    first = holder(*quick()[:2], "--beat", "3600")
    assert first.says() == "held no"
    os.utime(store.leases / f"{NAME}.1", (mtime, mtime))
    began = time.monotonic()
    with lease_of(store) as lease:
        assert lease is not None
        assert lease.taken_over == "silent"
        assert time.monotonic() - began >= QUICK.ttl_seconds
    first.ask("check")
    assert first.says() == "lost"


@pytest.mark.slow
def test_a_killed_holder_under_another_kernel_is_given_up_after_its_time(store: Store, holder: Callable[..., Process]):
    first = holder(*quick())
    assert first.says() == "held no"
    first.send(signal.SIGKILL)
    with lease_of(store) as lease:
        assert lease is not None
        assert lease.taken_over == "silent"


@pytest.mark.slow
def test_who_follows_a_dead_one_that_followed_a_silent_one_is_warned(store: Store, holder: Callable[..., Process]):
    """The silent one may still write, and the dead one may not have come to deal with it."""
    first = holder(*quick())
    assert first.says() == "held no"
    first.stopped()
    second = holder(*quick(lease_files.boot_id()))
    assert second.says() == "held silent"
    second.send(signal.SIGKILL)
    second.running.wait()
    store.prepare()
    with lease_of(store) as lease:
        assert lease is not None
        assert lease.taken_over == "silent"


@pytest.mark.slow
def test_an_empty_lease_file_is_given_up_after_its_time(store: Store):
    (store.leases / f"{NAME}.7").touch()
    with lease_of(store) as lease:
        assert lease is not None
        assert (lease.number, lease.taken_over) == (8, "silent")


def test_a_lease_that_was_removed_is_lost(store: Store):
    with lease_of(store) as lease:
        assert lease is not None
        (store.leases / f"{NAME}.1").unlink()
        with pytest.raises(LeaseLost, match="another process took over"):
            lease.check()


def test_releasing_a_lost_lease_leaves_its_successor_alone(store: Store):
    with lease_of(store) as lease:
        assert lease is not None
        (store.leases / f"{NAME}.1").unlink()
        (store.leases / f"{NAME}.1").write_text("somebody else's")
    assert litter(store) == [f"{NAME}.1"]


@pytest.mark.slow
def test_where_links_are_refused_leases_work_too(store: Store, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with lease_of(store) as lease:
        assert lease is not None
        lease.check()
        with lease_of(store, 1.0) as second:
            assert second is None
    assert litter(store) == []


@pytest.mark.slow
@pytest.mark.parametrize("boots", [pytest.param([""], id="one kernel"), pytest.param(["", FOREIGN], id="two kernels")])
def test_of_eight_that_wait_one_at_a_time_goes_on(store: Store, holder: Callable[..., Process], boots: list[str]):
    options = ["--beat", "0.2", "--ttl", "30", "--rounds", "6"]
    processes = [holder(*options, "--boot", boots[number % len(boots)]) for number in range(8)]
    assert [each.running.wait(DEADLINE_SECONDS * 2) for each in processes] == [0] * 8
    assert litter(store) == []
