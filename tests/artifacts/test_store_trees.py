import errno
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.artifacts.stores import (
    CONTENTS,
    NAME,
    OTHER,
    SOURCES,
    adopt,
    is_whole,
    litter,
    manifest_for,
    new_store,
    published,
    sha256,
    small_disk,
)

from inference_cache_artifacts.errors import Corrupt, DiskFailed
from inference_cache_artifacts.manifest import File, Manifest, parse_manifest
from inference_cache_artifacts.store import blobs, trees
from inference_cache_artifacts.store.building import BlobGone
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.publishing import publish


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


def test_a_published_tree_is_found_whole(store: Store):
    published(store)
    tree = trees.find(store, NAME)
    assert tree is not None
    assert (tree.count, tree.size, tree.sources) == (4, 8002, SOURCES)
    assert tree.manifest() == manifest_for(CONTENTS)
    assert tree.digest == manifest_for(CONTENTS).digest
    assert {path: (tree.files / path).read_bytes() for path in CONTENTS} == CONTENTS
    assert trees.check(store, NAME, hashes=True) == ()
    assert litter(store) == []


def test_its_marker_is_a_manifest_like_any_other(store: Store):
    published(store)
    assert parse_manifest((store.tree(NAME) / "manifest.json").read_bytes()) == manifest_for(CONTENTS)


def test_trees_share_their_blobs(store: Store):
    one = published(store)
    two = published(store, {**CONTENTS, "config.json": b"{1}"}, OTHER)
    shared = [(tree.files / "model/weights-1").stat() for tree in (one, two)]
    assert shared[0].st_ino == shared[1].st_ino
    assert shared[0].st_nlink == 3


def test_files_can_be_read_by_everybody_and_written_by_nobody(store: Store):
    old = os.umask(0o077)
    try:
        tree = published(store)
    finally:
        os.umask(old)
    assert {(tree.files / path).stat().st_mode & 0o777 for path in CONTENTS} == {0o444}
    assert {folder.stat().st_mode & 0o777 for folder in (tree.files.parent, tree.files, tree.files / "model")} == {0o755}


def test_the_first_of_a_name_wins(store: Store):
    first = published(store)
    assert published(store, {"config.json": b"other"}) == first
    assert is_whole(store)


def test_a_folder_without_a_marker_is_no_tree_and_gives_way(store: Store):
    (store.tree(NAME) / "files").mkdir(parents=True)
    (store.tree(NAME) / "files" / "half").write_text("half")
    assert trees.find(store, NAME) is None
    assert trees.check(store, NAME) == ("files",)
    published(store)
    assert is_whole(store)


def test_a_damaged_marker_names_itself(store: Store):
    published(store)
    marker = store.tree(NAME) / "manifest.json"
    marker.unlink()
    marker.write_text("{")
    with pytest.raises(DiskFailed, match=r"manifest\.json: is damaged"):
        trees.find(store, NAME)


def test_a_blob_that_went_away_is_named(store: Store):
    for data in CONTENTS.values():
        adopt(store, data)
    store.blob(sha256(CONTENTS["model/weights-1"])).unlink()
    with pytest.raises(BlobGone) as caught:
        publish(store, NAME, manifest_for(CONTENTS), sources=SOURCES)
    assert caught.value.file == "model/weights-1"
    assert trees.find(store, NAME) is None
    assert litter(store) == []


def test_a_blob_of_another_size_is_never_published(store: Store):
    path = adopt(store, b"12345")
    path.chmod(0o644)
    path.write_bytes(b"123")
    with pytest.raises(BlobGone, match="has 3 bytes, not 5"):
        publish(store, NAME, manifest_for({"a": b"12345"}), sources=SOURCES)


def test_nothing_cannot_have_the_hash_of_something(store: Store):
    with pytest.raises(Corrupt, match="promised to be empty"):
        publish(store, NAME, Manifest((File("a", 0, sha256(b"x")),)), sources=SOURCES)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP], ids=errno.errorcode.__getitem__)
def test_where_links_are_refused_files_are_copied(store: Store, monkeypatch: pytest.MonkeyPatch, code: int):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    tree = published(store)
    assert is_whole(store)
    assert (tree.files / "config.json").stat().st_nlink == 1
    assert (tree.files / "config.json").stat().st_mode & 0o777 == 0o444


def test_where_the_kernel_cannot_copy_either_files_are_copied_by_hand(store: Store, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "no")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    published(store)
    assert is_whole(store)


@pytest.mark.parametrize(
    ("harm", "wrong"),
    [
        pytest.param(lambda files: (files / "config.json").write_bytes(b"[]"), ("config.json",), id="bytes"),
        pytest.param(lambda files: (files / "config.json").write_bytes(b"{"), ("config.json",), id="size"),
        pytest.param(lambda files: (files / "model/weights-1").unlink(), ("model/weights-1",), id="missing"),
        pytest.param(lambda files: (files / "more").write_bytes(b""), ("more",), id="extra"),
    ],
)
def test_check_names_what_is_wrong(store: Store, harm, wrong):
    harm(published(store).files)
    assert trees.check(store, NAME, hashes=True) == wrong


def test_an_adopted_blob_is_there_and_its_partial_is_not(store: Store):
    path = adopt(store, b"abc")
    assert blobs.has(store, sha256(b"abc"), 3)
    assert not blobs.has(store, sha256(b"abc"), 4)
    assert path.stat().st_nlink == 1
    assert path.stat().st_mode & 0o777 == 0o444
    assert litter(store) == []


def test_a_blob_that_is_there_wins_and_the_partial_goes(store: Store):
    inode = adopt(store, b"abc").stat().st_ino
    assert adopt(store, b"abc").stat().st_ino == inode
    assert litter(store) == []


def test_a_blob_that_lost_bytes_is_replaced(store: Store):
    path = adopt(store, b"abc")
    path.chmod(0o644)
    path.write_bytes(b"a")
    assert adopt(store, b"abc").read_bytes() == b"abc"


def test_verify_reads_the_bytes_again(store: Store):
    path = adopt(store, b"abc")
    assert blobs.verify(store, sha256(b"abc"))
    path.chmod(0o644)
    path.write_bytes(b"abd")
    assert not blobs.verify(store, sha256(b"abc"))
    assert not blobs.verify(store, sha256(b"never"))


@pytest.mark.slow
def test_killed_at_any_step_a_publisher_leaves_a_whole_tree_or_none(tmp_path: Path):
    """Every step on the disk that Python reports is one to be killed before; the last publisher comes to its end."""
    with small_disk(tmp_path / "disk", "16m") as disk:
        outcomes = list(_outcomes(disk))
    assert len(outcomes) > 40
    assert outcomes[0] == "none"
    assert outcomes[-1] == "whole"
    assert outcomes == sorted(outcomes, key=["none", "whole"].index)


def _outcomes(disk: Path) -> Iterator[str]:
    ended = False
    for step in range(1000):
        if ended:
            return
        store = new_store(disk / "store")
        ended = _ends(step, store)
        yield _outcome(store)
        shutil.rmtree(store.root)


def _ends(step: int, store: Store) -> bool:
    child = os.fork()
    if child == 0:
        try:
            _die_at(step)
            published(store)
        finally:
            os._exit(0 if trees.find(store, NAME) else 1)
    status = os.waitpid(child, 0)[1]
    assert status in {0, signal.SIGKILL}
    return status == 0


def _outcome(store: Store) -> str:
    found = trees.find(store, NAME)
    outcome = "none" if found is None else "whole" if is_whole(store) else "half"
    store.prepare()
    assert [path for path in store.trees.iterdir() if path.name.startswith(".")] == []
    published(store)
    assert is_whole(store)
    return outcome


def _die_at(step: int) -> None:
    left = step

    def count(event: str, _: object) -> None:
        nonlocal left
        if event == "open" or (event.startswith("os.") and event != "os.kill"):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
