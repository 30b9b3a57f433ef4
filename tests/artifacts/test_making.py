"""A manifest of a folder or of a source is what `sha256sum` would say, and comparing tells what differs."""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from inference_cache_artifacts.errors import BadManifest, BadRequest, Changed, Unreachable
from inference_cache_artifacts.errors import Transient as Shaky
from inference_cache_artifacts.making import BUFFER_BYTES, Difference, Stopped, differences, in_threads, manifest_of_folder
from inference_cache_artifacts.making_remote import ATTEMPTS, Reader
from inference_cache_artifacts.manifest import FILE_NAME, File
from inference_cache_artifacts.progress import Silent
from inference_cache_artifacts.source import Body, Remote


def file_of(path: str, content: bytes) -> File:
    return File(path, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "weights").mkdir(parents=True)
    (made / "weights" / "a.bin").write_bytes(b"a" * (BUFFER_BYTES + 3))
    (made / "config.json").write_bytes(b"{}")
    (made / "empty").write_bytes(b"")
    return made


def test_a_folders_manifest_names_every_file(folder: Path) -> None:
    manifest = manifest_of_folder(folder, Silent())
    assert manifest.files == (file_of("config.json", b"{}"), file_of("empty", b""), file_of("weights/a.bin", b"a" * (BUFFER_BYTES + 3)))


def test_the_manifest_itself_is_left_out_at_the_top_only(folder: Path) -> None:
    before = manifest_of_folder(folder, Silent())
    (folder / FILE_NAME).write_text(before.text())
    (folder / "other.json").write_text("old")
    assert manifest_of_folder(folder, Silent(), leave_out=folder / "other.json") == before
    (folder / "weights" / FILE_NAME).write_text("{}")
    assert f"weights/{FILE_NAME}" in {file.path for file in manifest_of_folder(folder, Silent()).files}


def test_a_link_within_the_folder_is_the_file_it_leads_to(folder: Path) -> None:
    (folder / "same.json").symlink_to("config.json")
    assert file_of("same.json", b"{}") in manifest_of_folder(folder, Silent()).files


def test_the_folder_may_be_a_link_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert manifest_of_folder(tmp_path / "link", Silent()) == manifest_of_folder(folder, Silent())


def make_link_out(folder: Path) -> None:
    (folder.parent / "secret").write_text("s")
    (folder / "bad").symlink_to("../secret")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        pytest.param(make_link_out, "leads out of the folder", id="link-to-a-file-outside"),
        pytest.param(lambda folder: (folder / "bad").symlink_to("weights"), "link to a folder", id="link-to-a-folder"),
        pytest.param(lambda folder: os.mkfifo(folder / "bad"), "neither file nor folder", id="fifo"),
        pytest.param(lambda folder: (folder / "bad\nname").write_text(""), "no file name should have", id="line-end-in-the-name"),
        pytest.param(lambda folder: (folder / os.fsdecode(b"bad\xff")).write_text(""), "no file name should have", id="name-is-no-utf8"),
    ],
)
def test_what_no_manifest_can_hold_is_named(folder: Path, make: object, told: str) -> None:
    make(folder)  # type: ignore[operator]
    with pytest.raises((BadRequest, BadManifest), match=told) as caught:
        manifest_of_folder(folder, Silent())
    assert "bad" in str(caught.value)


def test_an_empty_folder_and_none_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match="no files"):
        manifest_of_folder(tmp_path, Silent())
    with pytest.raises(BadRequest, match="is no folder"):
        manifest_of_folder(tmp_path / "nothing", Silent())


class Growing(Silent):
    """A file grows when hashing begins."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def planned(self, files: int, total_bytes: int, already_bytes: int) -> None:
        self.file.write_bytes(b"longer now")


def test_a_file_that_changes_meanwhile_is_named(folder: Path) -> None:
    with pytest.raises(Changed, match=r"config\.json"):
        manifest_of_folder(folder, Growing(folder / "config.json"))


def test_a_folder_that_is_as_promised_differs_in_nothing(folder: Path) -> None:
    manifest = manifest_of_folder(folder, Silent())
    (folder / FILE_NAME).write_text(manifest.text())
    assert differences(manifest, folder, Silent()) == []


def test_every_difference_is_told(folder: Path) -> None:
    manifest = manifest_of_folder(folder, Silent())
    (folder / "weights" / "a.bin").write_bytes(b"b" * (BUFFER_BYTES + 3))
    (folder / "config.json").write_bytes(b"{ }")
    (folder / "empty").unlink()
    (folder / "more").write_bytes(b"")
    told = differences(manifest, folder, Silent())
    assert [each.path for each in told] == ["config.json", "empty", "more", "weights/a.bin"]
    assert told[:3] == [
        Difference("config.json", "has 3 bytes, not 2"),
        Difference("empty", "missing"),
        Difference("more", "the manifest does not name it"),
    ]
    assert "SHA-256" in told[3].what


@dataclass
class FakeBody:
    content: bytes
    fails: bool

    def readinto(self, buffer: memoryview) -> int:
        if self.fails and not self.content:
            raise Shaky("cut")
        count = min(len(buffer), len(self.content))
        buffer[:count] = self.content[:count]
        self.content = self.content[count:]
        return count


@dataclass
class FakeSource:
    """Gives at most `at_once` bytes a request, and then breaks."""

    files: dict[str, bytes]
    at_once: int = 1 << 30
    raises: bool = False
    lists: bool = True
    failing_listings: int = 0
    opened: list[tuple[str, int]] = field(default_factory=list)
    url: str = "s3://bucket/model/"

    def listing(self) -> Sequence[Remote] | None:
        if self.failing_listings:
            self.failing_listings -= 1
            raise Shaky("busy")
        return [Remote(path, len(content)) for path, content in self.files.items()] if self.lists else None

    def head(self, path: str) -> Remote:
        raise NotImplementedError

    def read(self, path: str, limit: int) -> bytes:
        raise NotImplementedError

    @contextmanager
    def open(self, remote: Remote, start: int, end: int) -> Iterator[Body]:
        self.opened.append((remote.path, start))
        content = self.files[remote.path][start:end]
        yield FakeBody(content[: self.at_once], self.raises and len(content) > self.at_once)

    def close(self) -> None: ...


def read(source: FakeSource) -> tuple[File, ...]:
    return Reader(source, Silent(), wait=lambda _: None).manifest().files


CONTENT = {"a.bin": bytes(range(256)) * 20, "empty": b"", FILE_NAME: b"old"}
EXPECTED = tuple(file_of(path, CONTENT[path]) for path in ("a.bin", "empty"))


@pytest.mark.parametrize("raises", [pytest.param(True, id="breaks"), pytest.param(False, id="just-ends")])
def test_a_source_is_read_on_where_it_broke_off(raises: bool) -> None:
    source = FakeSource(CONTENT, at_once=1000, raises=raises)
    assert read(source) == EXPECTED
    assert source.opened == [("a.bin", start) for start in range(0, 5120, 1000)]


def test_a_source_that_gives_nothing_is_given_up() -> None:
    source = FakeSource(CONTENT, at_once=0)
    with pytest.raises(Unreachable, match=r"a\.bin"):
        read(source)
    assert len(source.opened) == ATTEMPTS


def test_a_listing_is_asked_for_again() -> None:
    assert read(FakeSource(CONTENT, failing_listings=2)) == EXPECTED
    with pytest.raises(Unreachable, match="the list of files"):
        read(FakeSource(CONTENT, failing_listings=99))


def test_a_source_that_cannot_list_is_refused() -> None:
    with pytest.raises(BadRequest, match="cannot list"):
        read(FakeSource(CONTENT, lists=False))


def test_a_sources_names_are_checked() -> None:
    with pytest.raises(BadManifest):
        read(FakeSource({"../a": b""}))


def test_the_first_failure_ends_the_other_threads() -> None:
    def act(number: int, stop: threading.Event) -> int:
        if number == 0:
            raise Changed("it changed")
        assert stop.wait(60)
        raise Stopped

    with pytest.raises(Changed, match="it changed"):
        in_threads(act, range(3), threads=3)
    assert in_threads(lambda number, _: number * 2, range(100), threads=3) == list(range(0, 200, 2))
