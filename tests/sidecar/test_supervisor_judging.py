"""What heartbeats, ends and memory readings lead to."""

from pathlib import Path

import pytest

from inference_cache_sidecar.supervisor.judging import Backoff, Health, Punctuality, health
from inference_cache_sidecar.supervisor.memory import Memory, MemoryWatch, Remedy, read_memory

TICK = 0.05


@pytest.mark.parametrize(
    ("accepting", "late", "age", "expected"),
    [
        pytest.param(False, 100.0, 1.0, Health.STARTING, id="starting"),
        pytest.param(False, 100.0, 60.0, Health.FROZEN, id="never-started"),
        pytest.param(True, 0.49, 1.0, Health.WELL, id="well"),
        pytest.param(True, 0.5, 1.0, Health.LATE, id="late"),
        pytest.param(True, 0.75, 1.0, Health.SUSPECT, id="suspect"),
        pytest.param(True, 1.5, 1.0, Health.REPLACEABLE, id="replaceable"),
        pytest.param(True, 5.0, 1.0, Health.FROZEN, id="frozen"),
    ],
)
def test_health_follows_the_last_heartbeat(accepting: bool, late: float, age: float, expected: Health) -> None:
    assert health(accepting, late, age) is expected


def test_lateness_grows_while_the_supervisor_runs_on_time() -> None:
    punctuality = Punctuality(TICK, 0.0)
    for turn in range(1, 21):
        punctuality.ran(turn * TICK)
    assert punctuality.late_seconds(0.1, 1.0) == pytest.approx(0.9)


def test_lateness_is_counted_anew_after_the_supervisor_was_late_itself() -> None:
    punctuality = Punctuality(TICK, 0.0)
    punctuality.ran(7.0)
    assert punctuality.late_seconds(0.0, 7.0) == 0.0
    punctuality.ran(7.05)
    assert punctuality.late_seconds(0.0, 7.05) == pytest.approx(0.05)


def test_a_worker_is_started_at_once_and_later_if_workers_end_again_and_again() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(4)] == [0.0, 0.25, 0.5, 1.0]
    assert [backoff.after(1.0) for _ in range(8)][-1] == Backoff.MOST_SECONDS
    assert backoff.after(60.0) == 0.0


def group(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_memory_is_read_by_the_second_version_of_control_groups(tmp_path: Path) -> None:
    group(tmp_path, memory__max="1000\n", memory__current="900\n", memory__stat="anon 1\ninactive_file 300\n")
    assert read_memory(tmp_path) == Memory(600, 1000)


def test_memory_is_read_by_the_first_version_of_control_groups(tmp_path: Path) -> None:
    stat = "cache 1\ntotal_inactive_file 100\n"
    group(tmp_path / "memory", memory__limit_in_bytes="1000\n", memory__usage_in_bytes="900\n", memory__stat=stat)
    assert read_memory(tmp_path) == Memory(800, 1000)


@pytest.mark.parametrize("limit", ["max\n", "9223372036854771712\n", "?"])
def test_without_a_limit_nothing_is_watched(tmp_path: Path, limit: str) -> None:
    assert read_memory(group(tmp_path, memory__max=limit, memory__current="1\n", memory__stat="")) is None


def test_a_machine_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert read_memory(tmp_path) is None


def test_near_the_limit_entries_go_first_then_the_worker_and_then_there_is_rest() -> None:
    watch, high = MemoryWatch(), Memory(90, 100)
    told = [(now, remedy) for now in range(30) if (remedy := watch.remedy(high, float(now))) is not Remedy.NONE]
    assert told[:3] == [(0, Remedy.SHED), (4, Remedy.SHED), (8, Remedy.REPLACE)]
    assert all(remedy is Remedy.SHED for _, remedy in told[3:])


CALM, HIGH, BETWEEN = Memory(50, 100), Memory(90, 100), Memory(80, 100)


def told(watch: MemoryWatch, memory: Memory, first: int, last: int) -> list[tuple[int, Remedy]]:
    """What was told in these seconds, but for nothing."""
    return [(now, remedy) for now in range(first, last) if (remedy := watch.remedy(memory, float(now))) is not Remedy.NONE]


def test_what_a_worker_keeps_is_raised_again_once_the_memory_has_been_calm_for_a_while() -> None:
    watch = MemoryWatch()
    assert told(watch, HIGH, 0, 1) == [(0, Remedy.SHED)]
    assert told(watch, BETWEEN, 1, 200) == []
    assert told(watch, CALM, 200, 250) == []
    assert told(watch, BETWEEN, 250, 251) == []
    assert told(watch, CALM, 251, 600) == [(311, Remedy.RESTORE)], "once, after a whole minute"


def test_where_the_memory_runs_short_again_and_again_a_longer_calm_is_asked_for() -> None:
    watch, waited = MemoryWatch(), []
    for begin in range(0, 80_000, 10_000):
        assert told(watch, HIGH, begin, begin + 1) == [(begin, Remedy.SHED)]
        waited += [now - begin - 1 for now, _ in told(watch, CALM, begin + 1, begin + 10_000)]
    assert waited == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_where_nothing_was_shed_nothing_is_raised() -> None:
    assert told(MemoryWatch(), CALM, 0, 300) == []


def test_below_the_mark_nothing_is_done() -> None:
    assert MemoryWatch().remedy(Memory(84, 100), 0.0) is Remedy.NONE


def test_at_the_limit_the_worker_goes_before_the_kernel_takes_all_but_not_again_and_again() -> None:
    watch = MemoryWatch()
    assert watch.remedy(Memory(98, 100), 0.0) is Remedy.KILL
    assert watch.remedy(Memory(98, 100), 1.0) is not Remedy.KILL
    assert watch.remedy(Memory(98, 100), 61.0) is Remedy.KILL


def test_two_workers_run_only_where_both_fit() -> None:
    assert Memory(50, 100).has_room_for(46)
    assert not Memory(50, 100).has_room_for(47)
