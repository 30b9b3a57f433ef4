"""Disks that are full, read-only or not there: an error by name, and nothing lost."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.artifacts.stores import (
    NAME,
    OTHER,
    SOURCES,
    adopt,
    is_whole,
    litter,
    manifest_for,
    mount,
    new_store,
    published,
    sha256,
    small_disk,
)

from inference_cache_artifacts.errors import ArtifactError, DiskFailed, NoSpace
from inference_cache_artifacts.store import blobs, collecting, disk, leases, pending, space, trees, using
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.publishing import publish


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "256k") as folder:
        yield folder


@pytest.fixture
def store(small: Path) -> Store:
    return new_store(small / "store")


def fill_up(store: Store) -> Path:
    path = store.root / "ballast"
    with pytest.raises(OSError, match="No space"):
        write_forever(path)
    return path


def write_forever(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_is_named_and_nothing_is_lost(store: Store):
    published(store)
    adopt(store, b"more")
    ballast = fill_up(store)
    more = manifest_for({f"{number}/more": b"more" for number in range(9)})
    with pytest.raises(NoSpace, match=f"{store.tree(OTHER)}: No space left on device"):
        publish(store, OTHER, more, sources=SOURCES)
    with pytest.raises(NoSpace, match="pending"):
        pending.announce(store, OTHER, more)
    assert trees.find(store, OTHER) is None
    assert is_whole(store)
    assert litter(store) == []
    ballast.unlink()
    publish(store, OTHER, more, sources=SOURCES)
    assert is_whole(store, OTHER)


def test_a_lease_on_a_full_disk_is_refused_by_name(store: Store):
    fill_up(store)
    with pytest.raises(NoSpace, match="leases"), leases.waiting(store, NAME, until=lambda: False):
        pass
    assert litter(store) == []


def test_a_holder_keeps_its_lease_when_the_disk_fills_up(store: Store):
    with leases.waiting(store, NAME, until=lambda: False, timing=leases.Timing(beat_seconds=0.01)) as lease:
        assert lease is not None
        fill_up(store)
        path = store.leases / f"{NAME}.1"
        before = path.read_bytes()
        while path.read_bytes() == before:
            lease.check()


def test_on_a_full_disk_room_can_be_made(store: Store):
    published(store, {"a": os.urandom(100_000)})
    fill_up(store)
    assert collecting.collect(store, keep=(), limits=collecting.Limits(needed_bytes=90_000, high_water=None)).trees == [NAME]
    space.check(store.root, 90_000)


def test_a_read_only_disk_is_named_and_what_is_there_can_be_used(small: Path, store: Store):
    published(store)
    mount("-o", "remount,ro", str(small))
    more = store.partials / "more.data"
    with pytest.raises(DiskFailed, match="cannot be written"):
        store.prepare()
    with pytest.raises(DiskFailed, match="Read-only file system"):
        publish(store, OTHER, manifest_for({"a": b"x"}), sources=SOURCES)
    with pytest.raises(DiskFailed, match="Read-only"), leases.waiting(store, OTHER, until=lambda: False):
        pass
    for write in (
        lambda: using.mark_used(store, NAME, "pod"),
        lambda: pending.announce(store, NAME, manifest_for({"a": b"x"})),
        lambda: collecting.collect(store, keep=(), limits=collecting.Limits(needed_bytes=1 << 60)),
    ):
        with pytest.raises(DiskFailed):
            write()
    with pytest.raises(DiskFailed):
        blobs.adopt(store, more, sha256(b"more"))
    assert is_whole(store)


def test_a_store_that_is_a_file_is_refused_by_name(tmp_path: Path):
    (tmp_path / "store").write_text("")
    with pytest.raises(DiskFailed, match="store/blobs/sha256: Not a directory"):
        new_store(tmp_path / "store")


def test_preparing_again_changes_nothing(store: Store):
    published(store)
    store.prepare()
    assert is_whole(store)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(errno.ENOSPC, NoSpace, id="full"),
        pytest.param(errno.EDQUOT, NoSpace, id="quota"),
        pytest.param(errno.EROFS, DiskFailed, id="read-only"),
        pytest.param(errno.EIO, DiskFailed, id="I/O error"),
        pytest.param(errno.EACCES, DiskFailed, id="permission"),
        pytest.param(errno.ESTALE, DiskFailed, id="stale"),
    ],
)
def test_every_error_of_the_disk_has_a_name_and_a_place(code: int, kind: type[ArtifactError]):
    with pytest.raises(kind, match=r"^/some/place: "), disk.disk_errors(Path("/some/place")):
        raise OSError(code, os.strerror(code))


def test_what_is_no_error_of_the_disk_goes_through():
    with pytest.raises(NoSpace, match=r"^mine$"), disk.disk_errors(Path("/some/place")):
        raise NoSpace("mine")


def test_a_file_is_replaced_whole_or_not_at_all(store: Store):
    path = store.root / "file"
    disk.replace(path, b"before")
    fill_up(store)
    with pytest.raises(OSError, match="No space"):
        disk.replace(path, bytes(100_000))
    assert path.read_bytes() == b"before"
    assert [each.name for each in store.root.iterdir() if each.name.startswith(".")] == []


def test_too_little_space_says_what_is_needed_what_is_free_and_where(small: Path):
    free = space.free_bytes(small)
    space.check(small, free)
    with pytest.raises(NoSpace, match=f"^{small}: {free} bytes are needed and 1 that stay free, {free} are free$"):
        space.check(small, free, 1)


def test_too_few_inodes_are_said_too(tmp_path: Path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=256k,nr_inodes=20", "tmpfs", str(folder))
    try:
        space.check(folder, 0, files=10)
        with pytest.raises(NoSpace, match="100 new files are needed"):
            space.check(folder, 0, files=100)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=60)
