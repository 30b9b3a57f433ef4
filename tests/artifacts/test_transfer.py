"""The transfer with sources in memory: whatever they do, a file is whole and right, or there is none."""

import hashlib
import itertools
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.artifacts.fake_source import FakeSource
from tests.artifacts.fetched import Counting

from inference_cache_artifacts.errors import ArtifactError, Changed, Corrupt, Forbidden, Missing, Unreachable
from inference_cache_artifacts.source import Checksum, Source
from inference_cache_artifacts.store.leases import LeaseLost
from inference_cache_artifacts.store.partials import Header, copied
from inference_cache_artifacts.transfer import limiting, mirrors, pieces, schedule
from inference_cache_artifacts.transfer.mirrors import Mirrors
from inference_cache_artifacts.transfer.transferring import Transfer
from inference_cache_artifacts.transfer.wanted import Fetched, Wanted

BIG = random.Random(1).randbytes(3 << 20)
FILES = {"weights/a": BIG, "weights/b": random.Random(2).randbytes(700_001), "config.json": b"{}", "empty": b""}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pieces in little time."""
    monkeypatch.setattr(schedule, "PIECE_BYTES", 256 << 10)
    monkeypatch.setattr(pieces, "BUFFER_BYTES", 64 << 10)
    monkeypatch.setattr(mirrors, "BURST_SECONDS", 0.002)
    monkeypatch.setattr(pieces, "backoff_seconds", lambda failures, after=None: limiting.backoff_seconds(failures, after, 0.001, 0.01))


def wanted(folder: Path, files: dict[str, bytes], *, verified: bool = True) -> list[Wanted]:
    made = []
    for number, (path, content) in enumerate(files.items()):
        sha256 = hashlib.sha256(content)
        checksums = (Checksum("sha256", sha256.digest()),) if verified else ()
        made.append(Wanted(path, len(content), checksums, folder / f"{number}.data", Header(len(content), sha256.hexdigest())))
    return made


def run(
    files: list[Wanted], *sources: Source, watch: Callable[[], None] = lambda: None, connections: int = 4, patience: float = 60.0
) -> tuple[dict[str, bytes], Counting]:
    fetched: dict[str, bytes] = {}

    def keep(each: Fetched) -> None:
        content = each.wanted.data.read_bytes()
        assert hashlib.sha256(content).hexdigest() == each.sha256
        fetched[each.wanted.path] = content

    progress = Counting()
    Transfer(Mirrors(sources, patience), progress, keep, None).run(files, connections, watch)
    return fetched, progress


@pytest.mark.parametrize("connections", [1, 2, 8])
def test_every_file_is_whole_and_each_byte_comes_once(tmp_path: Path, connections: int) -> None:
    source = FakeSource(FILES)
    fetched, progress = run(wanted(tmp_path, FILES), source, connections=connections)
    assert fetched == FILES
    assert progress.bytes == source.sent == sum(map(len, FILES.values()))


def test_who_stood_still_does_not_hand_in_what_another_goes_on_with(tmp_path: Path) -> None:
    source = FakeSource({"a": BIG}, on_open=lambda *_: copied(tmp_path, ""))
    with pytest.raises(LeaseLost, match="another process"):
        run(wanted(tmp_path, {"a": BIG}), source)


@pytest.mark.parametrize("with_error", [pytest.param(True, id="reset"), pytest.param(False, id="closed")])
def test_answers_that_are_cut_off_cost_no_byte_twice(tmp_path: Path, with_error: bool) -> None:
    source = FakeSource(FILES, cut_after=100_000, cuts_with_error=with_error)
    fetched, progress = run(wanted(tmp_path, FILES), source)
    assert fetched == FILES
    assert progress.bytes == sum(map(len, FILES.values()))


def test_a_storm_of_failures_passes(tmp_path: Path) -> None:
    fetched, _ = run(wanted(tmp_path, FILES), FakeSource(FILES, failures=40))
    assert fetched == FILES


def test_a_dead_first_mirror_is_given_up_and_the_second_gives_everything(tmp_path: Path) -> None:
    dead, good = FakeSource(FILES, dead=True), FakeSource(FILES, url="s3://other/model")
    fetched, progress = run(wanted(tmp_path, FILES), dead, good, patience=60.0)
    assert fetched == FILES
    assert dead.sent == 0
    assert progress.events.count("retry") <= 100


def test_the_last_mirror_is_unreachable_after_a_while(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="s3://bucket/model: 503"):
        run(wanted(tmp_path, FILES), FakeSource(FILES, dead=True), patience=0.05)


def test_a_flipped_byte_is_found_and_another_mirror_gives_the_right_one(tmp_path: Path) -> None:
    bad = FakeSource({**FILES, "weights/a": BIG[:1000] + bytes([BIG[1000] ^ 1]) + BIG[1001:]})
    fetched, _ = run(wanted(tmp_path, FILES), bad, FakeSource(FILES, url="s3://other/model"))
    assert fetched == FILES


@pytest.mark.parametrize("position", [0, 1, 65_535, 262_144, len(BIG) - 1])
def test_without_another_mirror_a_flipped_byte_is_the_files_end(tmp_path: Path, position: int) -> None:
    flipped = bytearray(BIG)
    flipped[position] ^= 0x10
    with pytest.raises(Corrupt, match="weights/a: from s3://bucket/model") as raised:
        run(wanted(tmp_path, FILES), FakeSource({**FILES, "weights/a": bytes(flipped)}))
    assert raised.value.file == "weights/a"


def test_a_file_of_another_size_is_refused_before_its_first_byte(tmp_path: Path) -> None:
    source = FakeSource({**FILES, "weights/a": BIG + b"x"})
    with pytest.raises(Corrupt, match="has 3145729 bytes, not 3145728"):
        run(wanted(tmp_path, {"weights/a": BIG}), source)
    assert source.sent == 0


def test_what_a_source_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"config\.json") as raised:
        run(wanted(tmp_path, FILES), FakeSource({path: content for path, content in FILES.items() if path != "config.json"}))
    assert raised.value.file == "config.json"


def test_the_first_mirrors_reason_is_the_one_told(tmp_path: Path) -> None:
    class Refusing(FakeSource):
        def head(self, path: str) -> "object":  # type: ignore[override]
            raise Forbidden(f"{path}: no", path)

    with pytest.raises(Forbidden, match=r"no; .*does not have it"):
        run(wanted(tmp_path, {"config.json": b"{}"}), Refusing(FILES), FakeSource({}, url="s3://other/model"))


def test_an_object_swapped_on_the_way_is_never_mixed_with_the_former_one(tmp_path: Path) -> None:
    source, other = FakeSource({"weights/a": BIG[::-1]}), BIG

    def swap(path: str, start: int) -> None:
        if start > 1 << 20:
            source.files, source.etags = {"weights/a": other}, {"weights/a": '"2"'}

    source.on_open = swap
    fetched, _ = run(wanted(tmp_path, {"weights/a": other}), source)
    assert fetched == {"weights/a": other}


def test_an_object_swapped_on_the_way_ends_a_fetch_that_no_checksum_guards(tmp_path: Path) -> None:
    source = FakeSource({"weights/a": BIG[::-1]})
    source.on_open = lambda path, start: source.etags.update({"weights/a": '"2"'}) if start > 1 << 20 else None
    with pytest.raises(Changed):
        run(wanted(tmp_path, {"weights/a": BIG}, verified=False), source)


def test_what_a_former_run_left_is_not_fetched_again(tmp_path: Path) -> None:
    class Enough(ArtifactError):
        pass

    source, calls, seen = FakeSource(FILES, cut_after=70_000), itertools.count(1), threading.Event()

    def watch() -> None:
        if source.sent > 1 << 20:
            seen.set()
            raise Enough("")

    def held(path: str, start: int) -> None:
        # Twenty answers are more than the watch wants, and less than the file.
        if next(calls) > 20:
            assert seen.wait(60)

    source.on_open = held
    with pytest.raises(Enough):
        run(wanted(tmp_path, {"weights/a": BIG}), source, watch=watch)
    source.on_open = lambda path, start: None
    fetched, _ = run(wanted(tmp_path, {"weights/a": BIG}), source)
    assert fetched == {"weights/a": BIG}
    assert source.sent == len(BIG)


def test_what_a_former_run_left_of_another_file_is_worthless(tmp_path: Path) -> None:
    other = bytes(len(BIG))
    run(wanted(tmp_path, {"weights/a": other}), FakeSource({"weights/a": other}))
    fetched, progress = run(wanted(tmp_path, {"weights/a": BIG}), FakeSource({"weights/a": BIG}))
    assert fetched == {"weights/a": BIG}
    assert progress.bytes == len(BIG)


def test_a_journal_that_names_bytes_which_are_not_there_costs_one_more_fetch(tmp_path: Path) -> None:
    """As after a crash of the whole machine."""
    (file,) = wanted(tmp_path, {"weights/a": BIG})
    run([file], FakeSource({"weights/a": BIG}))
    content = bytearray(BIG)
    content[5000:9000] = bytes(4000)
    file.data.write_bytes(content)
    fetched, progress = run([file], FakeSource({"weights/a": BIG}))
    assert fetched == {"weights/a": BIG}
    assert progress.bytes == len(BIG)


@pytest.mark.parametrize("left", [b"", b"{", b"\xff\n1 2\n"], ids=["empty", "no header", "junk"])
def test_a_broken_journal_is_as_good_as_none(tmp_path: Path, left: bytes) -> None:
    (file,) = wanted(tmp_path, {"weights/a": BIG})
    run([file], FakeSource({"weights/a": BIG}))
    file.data.with_suffix(".journal").write_bytes(left)
    assert run([file], FakeSource({"weights/a": BIG}))[0] == {"weights/a": BIG}


def test_a_store_checksum_is_checked_too(tmp_path: Path) -> None:
    right = Checksum("crc64nvme", (0xAE8B14860A799888).to_bytes(8, "big"))
    content = b"123456789"
    (file,) = wanted(tmp_path, {"a": content}, verified=False)
    good = Wanted(file.path, file.size, (right,), file.data, file.header)
    assert run([good], FakeSource({"a": content}))[0] == {"a": content}
    file.data.unlink()
    with pytest.raises(Corrupt, match="crc64nvme"):
        run([good], FakeSource({"a": b"123456780"}), patience=1.0)


def test_a_limiter_lets_through_what_it_says() -> None:
    now = 100.0
    limiter = limiting.Limiter(1000.0, lambda: now)
    total = 0.0
    for _ in range(50):
        seconds = limiter.seconds_for(100)
        total += seconds
        now += seconds
    assert 4.7 <= total <= 5.01


def test_backoff_grows_is_bounded_and_never_shorter_than_asked_for() -> None:
    assert all(0 <= limiting.backoff_seconds(failures) <= 10.0 for failures in range(1, 60) for _ in range(20))
    assert max(limiting.backoff_seconds(1) for _ in range(200)) <= 0.4
    assert all(3.0 <= limiting.backoff_seconds(5, 3.0) <= 4.0 for _ in range(50))


def test_a_burst_that_breaks_all_connections_gives_no_mirror_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "BURST_SECONDS", 30.0)
    first = FakeSource(FILES, failures=8)
    second = FakeSource({path: content for path, content in FILES.items() if path != "weights/a"}, url="s3://other/model")
    fetched, _ = run(wanted(tmp_path, FILES), first, second, connections=8)
    assert fetched == FILES


def test_servers_that_tell_another_etag_each_time_still_give_a_file_whose_checksum_is_known(tmp_path: Path) -> None:
    source, number = FakeSource({"weights/a": BIG}), itertools.count()

    def turn(path: str, start: int) -> None:
        source.etags = {"weights/a": f'"{next(number)}"'}

    source.on_open = turn
    assert run(wanted(tmp_path, {"weights/a": BIG}), source)[0] == {"weights/a": BIG}


def test_an_empty_file_that_is_promised_to_be_something_is_corrupt(tmp_path: Path) -> None:
    (file,) = wanted(tmp_path, {"empty": b""})
    wrong = Wanted(file.path, 0, (Checksum("sha256", bytes(32)),), file.data, file.header)
    with pytest.raises(Corrupt, match="empty"):
        run([wrong], FakeSource({"empty": b""}))


def test_threads_that_cannot_be_started_are_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, itertools.count()

    def limited(thread: threading.Thread) -> None:
        if next(started) >= 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    assert run(wanted(tmp_path, FILES), FakeSource(FILES), connections=8)[0] == FILES
