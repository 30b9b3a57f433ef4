"""What is told while it works: counted right, in time, and to whom it belongs."""

import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from inference_cache_artifacts.counting import TICK_SECONDS, Counted, Meter, Snapshot, eta
from inference_cache_artifacts.displays import Bar, JsonLines, Lines, StatusFile, line
from inference_cache_artifacts.progress import Outcome
from inference_cache_artifacts.quantities import parse_bytes, parse_seconds, show_bytes, show_seconds

WELL = Outcome(tree="0" * 32, path="models/m")
BADLY = Outcome("Corrupt", "a.bin", "a.bin: other bytes")
DEADLINE_SECONDS = 60


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Seen:
    """A display that keeps what it was shown."""

    every_seconds: float = 1.0
    shown: list[Snapshot] = field(default_factory=list)
    notes: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    ends: list[tuple[Snapshot, Outcome]] = field(default_factory=list)
    on_show: Callable[[], None] = lambda: None

    def show(self, now: Snapshot) -> None:
        self.shown.append(now)
        self.on_show()

    def note(self, event: str, fields: dict[str, object]) -> None:
        self.notes.append((event, fields))

    def end(self, now: Snapshot, outcome: Outcome) -> None:
        self.ends.append((now, outcome))


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = Meter(window_seconds=10)
    assert meter.observe(0, 0) == 0
    assert meter.observe(1, 100) == 100
    for second in range(2, 12):
        meter.observe(second, 100 + 10 * (second - 1))
    assert meter.observe(12, 210) == 10


def test_a_stall_brings_the_rate_to_nothing() -> None:
    meter = Meter(window_seconds=10)
    meter.observe(0, 0)
    meter.observe(1, 1000)
    rates = [meter.observe(second, 1000) for second in range(2, 14)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0


def test_a_meter_forgets_what_it_needs_no_more() -> None:
    meter = Meter(window_seconds=10)
    for second in range(10_000):
        meter.observe(second, second)
    assert len(meter._seen) <= 12


@pytest.mark.parametrize(
    ("left", "rate", "seconds"),
    [pytest.param(100, 10.0, 10.0, id="going"), pytest.param(100, 0.0, None, id="standing"), pytest.param(0, 0.0, 0.0, id="done")],
)
def test_the_time_that_is_left(left: int, rate: float, seconds: float | None) -> None:
    assert eta(left, rate) == seconds


def looked(progress: Counted, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    progress.look()


def test_bytes_files_rate_and_time_are_told() -> None:
    clock, seen = Clock(), Seen()
    with Counted([seen], clock) as progress:
        progress.planned(files=3, total_bytes=1000, already_bytes=200)
        progress.received(100)
        progress.verified("a", 100)
        looked(progress, clock, 2)
    expected = Snapshot(300, 1000, 1, 3, bytes_per_second=50.0, eta_seconds=14.0, received_bytes=100)
    assert seen.shown[-1] == expected
    assert expected.fields() == {
        "bytes": 300,
        "totalBytes": 1000,
        "files": 1,
        "totalFiles": 3,
        "bytesPerSecond": 50,
        "etaSeconds": 14,
        "receivedBytes": 100,
    }


def test_bytes_that_came_twice_are_not_more_than_there_are() -> None:
    clock, seen = Clock(), Seen()
    with Counted([seen], clock) as progress:
        progress.planned(1, 100, 0)
        progress.received(250)
        looked(progress, clock, 1)
    assert (seen.shown[-1].bytes, seen.shown[-1].received_bytes) == (100, 250)


def test_a_second_plan_does_not_count_what_came_before_it_twice() -> None:
    clock, seen = Clock(), Seen()
    with Counted([seen], clock) as progress:
        progress.planned(2, 1000, 0)
        progress.received(400)
        progress.planned(2, 1000, 300)
        looked(progress, clock, 1)
    assert seen.shown[-1].bytes == 300


def test_what_came_from_elsewhere_counts_once_it_is_verified() -> None:
    clock, seen = Clock(), Seen()
    with Counted([seen], clock) as progress:
        progress.planned(1, 100, 0)
        progress.verified("a", 100)
        looked(progress, clock, 1)
    assert seen.shown[-1].bytes == 100


def test_a_display_is_shown_no_more_often_than_it_wants() -> None:
    clock, often, seldom = Clock(), Seen(every_seconds=1.0), Seen(every_seconds=10.0)
    progress = Counted([often, seldom], clock)
    for _ in range(20):
        looked(progress, clock, 0.5)
    assert 9 <= len(often.shown) <= 11
    assert len(seldom.shown) == 1


def test_the_end_is_told_once_and_nothing_after_it() -> None:
    clock, seen = Clock(), Seen()
    with Counted([seen], clock) as progress:
        progress.planned(2, 1000, 400)
        progress.received(600)
        clock.now += 3
        progress.ended(WELL)
        progress.ended(BADLY)
    assert [outcome for _, outcome in seen.ends] == [WELL]
    last = seen.ends[0][0]
    assert (last.bytes, last.files, last.bytes_per_second, last.eta_seconds) == (1000, 2, 200.0, 0.0)


def test_a_failure_tells_how_far_it_came() -> None:
    clock, seen = Clock(), Seen()
    with Counted([seen], clock) as progress:
        progress.planned(2, 1000, 0)
        progress.received(600)
        progress.ended(BADLY)
    assert (seen.ends[0][0].bytes, seen.ends[0][0].files) == (600, 0)


def test_progress_is_shown_also_where_nothing_comes_in() -> None:
    again = threading.Event()
    seen = Seen(every_seconds=TICK_SECONDS, on_show=lambda: again.set() if len(seen.shown) > 1 else None)
    with Counted([seen]) as progress:
        progress.planned(1, 1000, 0)
        assert again.wait(DEADLINE_SECONDS)
    assert {each.bytes for each in seen.shown} == {0}


def test_a_reader_that_went_away_does_not_end_the_work() -> None:
    class Gone(Seen):
        def show(self, now: Snapshot) -> None:
            raise BrokenPipeError

    clock, other = Clock(), Seen()
    progress = Counted([Gone(), other], clock)
    looked(progress, clock, 1)
    looked(progress, clock, 1)
    assert len(other.shown) == 2


def test_bytes_of_many_threads_all_count() -> None:
    seen = Seen()
    with Counted([seen]) as progress:
        progress.planned(1, 80_000, 0)
        threads = [threading.Thread(target=lambda: [progress.received(1) for _ in range(10_000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        progress.ended(BADLY)
    assert seen.ends[0][0].received_bytes == 80_000


NOW = Snapshot(512 << 20, 1 << 30, 3, 8, 100 << 20, 5.0, 512 << 20)


def test_a_line_for_people() -> None:
    assert line(NOW) == "50 %, 512 MiB of 1 GiB, 3 of 8 files, 100 MiB/s, 5s left"
    assert line(Snapshot()) == "100 %, 0 B of 0 B, 0 of 0 files, 0 B/s, ? left"


def test_lines_in_a_log() -> None:
    out = io.StringIO()
    lines = Lines("fetch", out)
    lines.show(NOW)
    lines.note("retry", {"file": "a.bin", "failures": 2})
    lines.end(NOW, WELL)
    lines.end(NOW, BADLY)
    assert out.getvalue().splitlines() == [
        "fetch: 50 %, 512 MiB of 1 GiB, 3 of 8 files, 100 MiB/s, 5s left",
        "fetch: retry file=a.bin failures=2",
        "fetch: models/m: 8 files, 1 GiB; read 512 MiB at 100 MiB/s",
    ]


def test_a_source_in_trouble_does_not_fill_the_log() -> None:
    out = io.StringIO()
    lines = Lines("fetch", out)
    for failures in range(1, 1001):
        lines.note("retry", {"failures": failures})
    lines.note("mismatch", {})
    told = out.getvalue().splitlines()
    assert told[:5] == [f"fetch: retry failures={failures}" for failures in range(1, 6)]
    assert told[-2:] == ["fetch: retry failures=1000 (1000 times so far)", "fetch: mismatch"]
    assert len(told) < 35


def test_json_is_one_object_a_line_and_the_last_says_how_it_ended() -> None:
    out = io.StringIO()
    lines = JsonLines(out)
    lines.show(NOW)
    lines.note("retry", {"file": "a.bin"})
    lines.end(NOW, WELL)
    lines.end(NOW, BADLY)
    shown, note, well, badly = [json.loads(each) for each in out.getvalue().splitlines()]
    assert shown == {"event": "progress"} | NOW.fields()
    assert note == {"event": "retry", "file": "a.bin"}
    assert well == NOW.fields() | {"event": "done", "tree": "0" * 32, "path": "models/m"}
    assert badly == NOW.fields() | {"event": "failed", "reason": "Corrupt", "file": "a.bin", "message": "a.bin: other bytes"}


def test_the_status_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    status = StatusFile(file)
    status.show(NOW)
    with file.open() as opened:
        status.end(NOW, WELL)
        assert json.load(opened) == {"event": "progress"} | NOW.fields()
    assert json.loads(file.read_text())["event"] == "done"
    assert [each.name for each in tmp_path.iterdir()] == ["progress.json"]


def test_a_status_file_that_cannot_be_written_is_left(tmp_path: Path) -> None:
    StatusFile(tmp_path / "no" / "folder").show(NOW)


def test_a_bar_is_drawn_and_closed() -> None:
    out = io.StringIO()
    bar = Bar("fetch", out)
    bar.show(NOW)
    bar.note("retry", {"file": "a.bin"})
    bar.end(NOW, WELL)
    text = out.getvalue()
    assert "512M/1.00G" in text
    assert "3/8 files, 100 MiB/s" in text
    assert "retry file=a.bin" in text
    assert text.splitlines()[-1] == "fetch: models/m: 8 files, 1 GiB; read 512 MiB at 100 MiB/s"


def test_a_bar_that_had_nothing_to_show_says_what_is_there() -> None:
    out = io.StringIO()
    Bar("fetch", out).end(Snapshot(), WELL)
    assert out.getvalue() == "fetch: models/m: already there\n"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("17", 17),
        ("200Mi", 200 << 20),
        ("1.5G", 1_500_000_000),
        ("2Ki", 2048),
        ("3K", 3000),
        ("1Ti", 1 << 40),
        (" 5M ", 5_000_000),
    ],
)
def test_bytes_are_read(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1.5h", 5400), ("250ms", 0.25)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "Mi", "-1", "1MB", "1 Gi", "nan", "inf", "1e3", "٣", "9" * 30, "1mi"])
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no number of bytes"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "30", "1d", "-1s", "s", "1 h", "nans"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_seconds(text)


def test_quantities_for_people() -> None:
    assert [show_bytes(each) for each in (0, 999, 1023, 1 << 20, 3.5 * (1 << 30), 1 << 50)] == [
        "0 B",
        "999 B",
        "0.999 KiB",
        "1 MiB",
        "3.5 GiB",
        "1 PiB",
    ]
    assert [show_seconds(each) for each in (None, 0, 59.6, 61, 3_725)] == ["?", "0s", "1m00s", "1m01s", "1h02m"]
