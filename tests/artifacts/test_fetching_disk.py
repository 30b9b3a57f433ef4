"""Fetches onto disks that are full, read-only or have another clock: a named error, and nothing that was there is lost."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.artifacts import fetched
from tests.artifacts.fault_server import FaultServer

from inference_cache_artifacts.errors import DiskFailed, NoSpace
from inference_cache_artifacts.fetching import fetch
from inference_cache_artifacts.progress import Silent
from inference_cache_artifacts.request import Limits, Request
from inference_cache_artifacts.store import using
from inference_cache_artifacts.store.layout import Store

pytestmark = pytest.mark.services
MODEL = fetched.model(big=3 << 20)
SIZE = sum(map(len, MODEL.values()))
OTHER = fetched.model(seed=9, big=3 << 20)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(bytes)` mounts a file system of that size."""
    with ExitStack() as stack:

        def mounted(size: int) -> Path:
            folder = tmp_path / "disk"
            folder.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
            stack.callback(subprocess.run, ["umount", "-l", folder], check=True)
            return folder

        yield mounted


def request(url: str, version: str = "v1", **limits: object) -> Request:
    return Request((url,), version, limits=replace(Limits(), **limits))  # type: ignore[arg-type]


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(web: FaultServer, files: Path, small_disk: Callable[[int], Path]) -> None:
    fetched.put(files, MODEL)
    store, progress = Store(small_disk(SIZE - 1)), fetched.Counting()
    with pytest.raises(NoSpace, match=f"{SIZE} bytes are needed"):
        fetch(request(web.url), store, progress)
    assert progress.bytes == 0


def test_space_that_is_to_stay_free_stays_free(web: FaultServer, files: Path, small_disk: Callable[[int], Path]) -> None:
    fetched.put(files, MODEL)
    store = Store(small_disk(SIZE * 2))
    with pytest.raises(NoSpace, match="stay free"):
        fetch(request(web.url, reserve_bytes=SIZE), store, Silent())


def test_a_version_nobody_uses_makes_room_and_one_in_use_does_not(web: FaultServer, files: Path, small_disk: Callable[[int], Path]) -> None:
    fetched.put(files, MODEL)
    store = Store(small_disk(SIZE + (1 << 20)))
    first = fetch(request(web.url), store, Silent())
    using.mark_used(store, first.name, "pod-1")
    fetched.put(files, OTHER)
    with pytest.raises(NoSpace):
        fetch(request(web.url, "v2"), store, Silent())
    assert fetched.content(first) == MODEL
    using.release(store, first.name, "pod-1")
    assert fetched.content(fetch(request(web.url, "v2"), store, Silent())) == OTHER


@pytest.mark.parametrize("connections", [pytest.param(1, id="one"), pytest.param(Limits().connections, id="several")])
def test_a_disk_that_fills_up_on_the_way_is_named_and_what_came_is_kept(
    web: FaultServer, files: Path, small_disk: Callable[[int], Path], connections: int
) -> None:
    fetched.put(files, MODEL)
    folder = small_disk(SIZE + (1 << 20))
    store, filler, filling = Store(folder), folder / "filler", threading.Lock()

    class Filling(fetched.Counting):
        def received(self, count: int) -> None:
            # While it is written, nobody takes more than they hold already.
            with filling:
                super().received(count)
                if self.bytes > SIZE // 4 and not filler.exists():
                    filler.write_bytes(bytes(SIZE // 2))

    with pytest.raises(NoSpace, match="No space left"):
        fetch(request(web.url, connections=connections), store, Filling())
    assert fetched.nothing_published(store)
    filler.unlink()
    progress = fetched.Counting()
    assert fetched.content(fetch(request(web.url), store, progress)) == MODEL
    assert progress.bytes < SIZE


def test_a_read_only_disk_is_named(web: FaultServer, files: Path, small_disk: Callable[[int], Path]) -> None:
    fetched.put(files, MODEL)
    folder = small_disk(SIZE * 2)
    first = fetch(request(web.url), Store(folder), Silent())
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    assert fetch(request(web.url), Store(folder), Silent()) == first
    with pytest.raises(DiskFailed, match=str(folder)):
        fetch(request(web.url, "v2"), Store(folder), Silent())


@pytest.mark.parametrize("years", [pytest.param(-30, id="past"), pytest.param(30, id="future")])
def test_files_of_another_time_are_as_good(web: FaultServer, files: Path, tmp_path: Path, years: int) -> None:
    """As a node leaves them whose clock was wrong."""
    fetched.put(files, MODEL)
    store = Store(tmp_path / "store")
    first = fetch(request(web.url), store, Silent())
    then = time.time() + years * 365 * 86400
    for path in store.root.rglob("*"):
        os.utime(path, (then, then))
    fetched.put(files, OTHER)
    assert fetched.content(fetch(request(web.url, "v2"), store, Silent())) == OTHER
    assert fetch(request(web.url), store, Silent()) == first
    assert fetched.content(first) == MODEL
