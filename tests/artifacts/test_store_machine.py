"""Hundreds of steps on a small disk: what somebody relies on stays whole, and no fetch fails for room that could have been made."""

import os
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.artifacts.stores import SOURCES, is_whole, litter, manifest_for, new_store, sha256, small_disk

from inference_cache_artifacts.errors import NoSpace
from inference_cache_artifacts.store import blobs, collecting, lease_files, leases, pending, space, trees, using
from inference_cache_artifacts.store.lease_files import Content
from inference_cache_artifacts.store.publishing import publish

PAGE = 4096
SIZES = (1, 3_000, 9_000, 20_000, 40_000, 70_000, 100_000, 150_000)
CONTENTS = [bytes([number + 1]) * size for number, size in enumerate(SIZES)] + [b""]
NAMES = [f"{number:032x}" for number in range(12)]
HOLDERS = ["pod-1", "pod-2"]
SMALL_FILES = 8 * PAGE
"""Markers, a lease, an announcement: each a page of this disk."""
QUICK = leases.Timing(beat_seconds=3600, ttl_seconds=0.0)

names = st.sampled_from(NAMES)
numbers = st.lists(st.integers(0, len(CONTENTS) - 1), min_size=1, max_size=4, unique=True)


def files_of(chosen: list[int]) -> dict[str, bytes]:
    return {f"file-{place}": CONTENTS[number] for place, number in enumerate(chosen)}


def pages(data: bytes) -> int:
    return -(-len(data) // PAGE) * PAGE


class StoreMachine(RuleBasedStateMachine):
    disk: ClassVar[Path]
    published: ClassVar[int] = 0
    refused: ClassVar[int] = 0
    collected: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.store = new_store(self.disk / "store")
        self.capacity = space.free_bytes(self.disk)
        self.keep: set[str] = set()
        self.used: dict[str, set[str]] = {name: set() for name in NAMES}
        self.inside: dict[str, dict[str, bytes]] = {}

    @rule(name=names, chosen=numbers, somebody_collects=st.booleans())
    def fetch(self, name: str, chosen: list[int], somebody_collects: bool) -> None:
        files = files_of(chosen)
        try:
            self._fetch_or_make_room(name, files, somebody_collects)
        except NoSpace:
            type(self).refused += 1
            assert self._least_bytes(files) + SMALL_FILES > self.capacity

    @rule(name=names, holder=st.sampled_from(HOLDERS))
    def use(self, name: str, holder: str) -> None:
        if using.use(self.store, name, holder) is not None:
            self.used[name].add(holder)

    @rule(name=names, holder=st.sampled_from(HOLDERS))
    def release(self, name: str, holder: str) -> None:
        using.release(self.store, name, holder)
        self.used[name].discard(holder)

    @rule(name=names)
    def begin_to_keep(self, name: str) -> None:
        if trees.find(self.store, name):
            self.keep.add(name)

    @rule(name=names)
    def end_to_keep(self, name: str) -> None:
        self.keep.discard(name)

    @rule(needed=st.integers(0, 1 << 19), high_water=st.sampled_from([None, 0.5, 0.85]))
    def collect(self, needed: int, high_water: float | None) -> None:
        done = self._collect(needed, high_water)
        type(self).collected += len(done.trees)

    @rule(name=names, chosen=numbers, length=st.integers(0, 50_000))
    def kill_a_fetch(self, name: str, chosen: list[int], length: int) -> None:
        try:
            self._leave_litter(name, files_of(chosen), length)
        except (NoSpace, OSError):
            # What was being written when the disk was full is litter too.
            return

    @rule()
    def restart(self) -> None:
        self.store.prepare()
        assert not [each for each in litter(self.store) if each.startswith((".tmp-", ".gone-"))]

    @invariant()
    def what_somebody_relies_on_is_whole(self) -> None:
        for name in self._relied_on():
            assert is_whole(self.store, name)

    def teardown(self) -> None:
        self.keep.clear()
        for name in NAMES:
            for holder in HOLDERS:
                self.release(name, holder)
        self._collect(1 << 40, None)
        shutil.rmtree(self.store.trees)
        self.store.prepare()
        self._collect(1 << 40, None)
        left = self.capacity - space.free_bytes(self.disk)
        shutil.rmtree(self.store.root)
        assert left <= SMALL_FILES

    def _fetch_or_make_room(self, name: str, files: dict[str, bytes], somebody_collects: bool) -> None:
        try:
            self._fetch(name, files, somebody_collects)
        except NoSpace:
            # Not even a lease found room: nobody kept any free.
            self._collect(self._needed(files), None)
            self._fetch(name, files, somebody_collects)

    def _fetch(self, name: str, files: dict[str, bytes], somebody_collects: bool) -> None:
        with leases.waiting(self.store, name, until=lambda: trees.find(self.store, name) is not None, timing=QUICK) as lease:
            if lease is None:
                return
            pending.announce(self.store, name, manifest_for(files))
            if space.free_bytes(self.store.root) < self._needed(files):
                self._collect(self._needed(files), None, name)
            self._bring(name, files)
            if somebody_collects:
                self._collect(1 << 40, None)
            lease.check()
            publish(self.store, name, manifest_for(files), sources=SOURCES)
            pending.withdraw(self.store, name)
        self.inside[name] = files
        type(self).published += 1

    def _bring(self, name: str, files: dict[str, bytes]) -> None:
        for data in files.values():
            if data and not blobs.has(self.store, sha256(data), len(data)):
                self._write_partial(name, data, len(data))
                blobs.adopt(self.store, self._partial(name, data), sha256(data))

    def _write_partial(self, name: str, data: bytes, length: int) -> None:
        try:
            self._partial(name, data).write_bytes(data[:length])
        except OSError as error:
            raise NoSpace(str(error)) from error

    def _partial(self, name: str, data: bytes) -> Path:
        return self.store.partials / f"{name}-{sha256(data)[:16]}.data"

    def _needed(self, files: dict[str, bytes]) -> int:
        return SMALL_FILES + sum(pages(data) for data in files.values() if data and not self.store.blob(sha256(data)).exists())

    def _collect(self, needed: int, high_water: float | None, *fetched: str) -> collecting.Collected:
        limits = collecting.Limits(needed_bytes=needed, high_water=high_water, low_water=0.4)
        return collecting.collect(self.store, keep={*self.keep, *fetched}, limits=limits)

    def _leave_litter(self, name: str, files: dict[str, bytes], length: int) -> None:
        if trees.find(self.store, name) is not None:
            return
        self._leave_lease(name, length)
        pending.announce(self.store, name, manifest_for(files))
        first, *rest = files.values()
        self._bring(name, {"a": first})
        for data in rest:
            self._write_partial(name, data, length)
        half = self.store.trees / f".tmp-{name}-{length}" / "files"
        half.mkdir(parents=True, exist_ok=True)
        if first and not (half / "a").exists():
            os.link(self.store.blob(sha256(first)), half / "a")

    def _leave_lease(self, name: str, number: int) -> None:
        boot = lease_files.boot_id() if number % 2 else "another kernel"
        fd = lease_files.create(self.store.leases, name, number, Content("x", boot, 1, 0, locked=False, suspect=number % 3 == 0))
        if fd is not None:
            os.close(fd)
            os.utime(self.store.leases / f"{name}.{number}", (0, 0))

    def _relied_on(self) -> set[str]:
        return {*self.keep, *(name for name, holders in self.used.items() if holders)}

    def _least_bytes(self, files: dict[str, bytes]) -> int:
        """What the disk must hold at least: what is relied on, and this."""
        wanted = {data for name in self._relied_on() for data in self.inside[name].values()} | set(files.values())
        return sum(pages(data) for data in wanted) + PAGE * len(self._relied_on())


@pytest.mark.slow
def test_two_hundred_steps_on_a_small_disk(tmp_path: Path):
    class Machine(StoreMachine):
        pass

    with small_disk(tmp_path / "disk", "320k") as disk:
        Machine.disk = disk
        slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=20, stateful_step_count=200, database=None, suppress_health_check=slow)
        )
    assert Machine.published > 20
