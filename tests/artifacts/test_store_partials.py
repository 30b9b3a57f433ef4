"""Files on their way, written past the page cache or through it: whatever the disk allows, the bytes are the same."""

import errno
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_cache_artifacts.errors import DiskFailed, NoSpace
from inference_cache_artifacts.store import direct
from inference_cache_artifacts.store.direct import ALIGNMENT, Direct, pages
from inference_cache_artifacts.store.partials import Header, Partial, copied, opened

SIZE = 64 * ALIGNMENT + 17
CONTENT = random.Random(4).randbytes(SIZE)
HEADER = Header(SIZE, "content")
REAL_WRITE = os.pwrite

Write = Callable[[int, memoryview, int], int]


def refuses(descriptor: int, view: memoryview, offset: int) -> int:
    """As a file system that takes O_DIRECT at `open` only. What goes through the page cache is not whole pages."""
    if is_direct(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")
    return REAL_WRITE(descriptor, view, offset)


def little(descriptor: int, view: memoryview, offset: int) -> int:
    """A page of what is asked for."""
    return REAL_WRITE(descriptor, view[:ALIGNMENT], offset)


def half_a_page(descriptor: int, view: memoryview, offset: int) -> int:
    return REAL_WRITE(descriptor, view[:512], offset)


def is_direct(descriptor: int) -> bool:
    flags = Path(f"/proc/self/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0]
    return bool(int(flags, 8) & os.O_DIRECT)


@st.composite
def orders(draw: st.DrawFn) -> list[tuple[int, int, bool]]:
    """The whole file in pieces of any length, in any order; some of them are to be read soon."""
    edges = sorted(draw(st.sets(st.one_of(st.integers(1, SIZE - 1), st.integers(1, 63).map(ALIGNMENT.__mul__)), max_size=12)))
    pieces = list(zip([0, *edges], [*edges, SIZE], strict=True))
    return [(start, end, draw(st.booleans())) for start, end in draw(st.permutations(pieces))]


@pytest.mark.parametrize("write", [REAL_WRITE, refuses, little, half_a_page])
@pytest.mark.parametrize("disk", ["quick", "slow", "none"])
@settings(max_examples=25)
@given(order=orders())
def test_the_bytes_are_where_they_belong(write: Write, disk: str, order: Sequence[tuple[int, int, bool]]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(os, "pwrite", write),
        mock.patch.object(direct, "QUICK_BYTES_PER_SECOND", 0 if disk == "quick" else float("inf")),
        mock.patch.object(direct, "TRIES", 2),
        mock.patch.object(direct, "_BLOCK_DEVICES", devices(Path(folder), there=disk != "none")),
        opened(Path(folder, "a.data"), HEADER) as partial,
    ):
        for start, end, read_soon in order:
            partial.write(aligned(CONTENT[start:end]), start, read_soon=read_soon)
            assert read(partial, start, end) == CONTENT[start:end]
        assert read(partial, 0, SIZE) == CONTENT
        assert Path(folder, "a.data").read_bytes() == CONTENT


def aligned(content: bytes) -> memoryview:
    view = pages(len(content))
    view[:] = content
    return view


def read(partial: Partial, start: int, end: int) -> bytes:
    got = bytearray()
    while start + len(got) < end:
        buffer = pages(end - start - len(got))
        count = partial.read(buffer, start + len(got))
        assert count
        got += buffer[:count]
    return bytes(got)


def test_memory_that_is_no_whole_page_goes_through_the_page_cache(tmp_path: Path) -> None:
    odd = memoryview(bytearray(SIZE + 1))[1:]
    odd[:] = CONTENT
    with opened(tmp_path / "a.data", HEADER) as partial:
        partial.write(odd, 0)
        assert (tmp_path / "a.data").read_bytes() == CONTENT


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, NoSpace), (errno.EIO, DiskFailed)])
def test_a_disk_that_fails_is_told(tmp_path: Path, number: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(descriptor: int, view: memoryview, offset: int) -> int:
        raise OSError(number, os.strerror(number))

    with opened(tmp_path / "a.data", HEADER) as partial:
        monkeypatch.setattr(os, "pwrite", failing)
        with pytest.raises(error, match=r"a\.data"):
            partial.write(aligned(CONTENT), 0)


def test_a_quick_disk_is_written_and_read_past_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = ways_of(tmp_path, monkeypatch, bytes_per_second=0)
    with opened(tmp_path / "a.data", HEADER) as partial:
        for offset in range(0, SIZE, 16 * ALIGNMENT):
            partial.write(aligned(CONTENT[offset : offset + 16 * ALIGNMENT]), offset, read_soon=offset > 0)
        assert ways == [True, True, True, True, False]
        with mock.patch.object(os, "preadv", side_effect=os.preadv) as reads:
            assert read(partial, 0, SIZE) == CONTENT
        assert [is_direct(each.args[0]) for each in reads.mock_calls] == [True, False]


@pytest.mark.parametrize("was_quick", [False, True])
def test_a_disk_that_is_slow_is_only_asked_now_and_then(tmp_path: Path, was_quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = ways_of(tmp_path, monkeypatch, bytes_per_second=0 if was_quick else float("inf"))
    monkeypatch.setattr(direct, "TRIES", 5)
    monkeypatch.setattr(direct, "ASKED_EVERY", 3)
    with opened(tmp_path / "a.data", HEADER) as partial:
        for page in range(13):
            partial.write(aligned(CONTENT[page * ALIGNMENT :][:ALIGNMENT]), page * ALIGNMENT)
            monkeypatch.setattr(direct, "QUICK_BYTES_PER_SECOND", float("inf"))
    assert ways == ([True] * was_quick + [True] * 5 + [False, False, True] * 3)[:13]


def ways_of(folder: Path, monkeypatch: pytest.MonkeyPatch, bytes_per_second: float) -> list[bool]:
    """Grows with each write: whether it went past the page cache. In a folder whose disk lets it."""
    ways: list[bool] = []

    def write(descriptor: int, view: memoryview, offset: int) -> int:
        ways.append(is_direct(descriptor))
        return REAL_WRITE(descriptor, view, offset)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(direct, "QUICK_BYTES_PER_SECOND", bytes_per_second)
    monkeypatch.setattr(direct, "_BLOCK_DEVICES", devices(folder, there=True))
    return ways


def devices(folder: Path, *, there: bool) -> Path:
    """As /sys/dev/block, with or without the one that `folder` lies on."""
    device, found = folder.stat().st_dev, folder / "devices"
    (found / (f"{os.major(device)}:{os.minor(device)}" if there else "0:0")).mkdir(parents=True)
    return found


def test_nothing_is_opened_so_where_there_is_no_block_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_BLOCK_DEVICES", devices(tmp_path, there=False))
    with (tmp_path / "a").open("wb+") as file:
        before = descriptors()
        made = Direct(file.fileno())
        assert made.write(pages(ALIGNMENT), 0) == made.read(pages(ALIGNMENT), 0) == 0
        assert descriptors() == before
        made.close()


def test_what_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "a.journal").mkdir()
    before = descriptors()
    with pytest.raises(DiskFailed, match=r"a\.data: Is a directory"):
        Partial(tmp_path / "a.data", HEADER)
    assert descriptors() == before


def test_who_went_on_in_anothers_place_shares_nothing_with_it(tmp_path: Path) -> None:
    """The other one stood still, and wakes."""
    half = 32 * ALIGNMENT
    with opened(tmp_path / "a.data", HEADER) as other:
        other.write(aligned(CONTENT[:half]), 0)
        copied(tmp_path, "a")
        with opened(tmp_path / "a.data", HEADER) as own:
            assert list(own.present) == [(0, half)]
            other.write(aligned(b"?" * 2 * half)[half:], half)
            assert not other.is_still(tmp_path / "a.data")
            assert own.is_still(tmp_path / "a.data")
            assert (tmp_path / "a.data").read_bytes() == CONTENT[:half]
    with opened(tmp_path / "a.data", HEADER) as own:
        assert list(own.present) == [(0, half)]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.data", "a.journal"]


def test_what_cannot_be_copied_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    with opened(tmp_path / "a.data", HEADER) as other:
        other.write(aligned(CONTENT), 0)
    monkeypatch.setattr(os, "copy_file_range", refused)
    copied(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


def test_holes_stay_holes(tmp_path: Path) -> None:
    header = Header(1 << 30, "large")
    with opened(tmp_path / "a.data", header) as other:
        other.write(aligned(CONTENT[:ALIGNMENT]), 512 << 20)
    copied(tmp_path, "a")
    with opened(tmp_path / "a.data", header) as own:
        assert list(own.present) == [(512 << 20, (512 << 20) + ALIGNMENT)]
        assert read(own, 512 << 20, (512 << 20) + ALIGNMENT) == CONTENT[:ALIGNMENT]
    assert (tmp_path / "a.data").stat().st_blocks * 512 < 1 << 20


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
