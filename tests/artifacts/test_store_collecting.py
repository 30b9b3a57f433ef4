import os
import threading
from pathlib import Path

import pytest
from tests.artifacts.stores import CONTENTS, NAME, OTHER, adopt, is_whole, litter, manifest_for, new_store, published, sha256

from inference_cache_artifacts.store import lease_files, leases, locking, pending, removing, trees, using
from inference_cache_artifacts.store import litter as sweeping
from inference_cache_artifacts.store.collecting import Limits, collect, goal_bytes
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.space import Room

ALL = Limits(needed_bytes=1 << 62, high_water=None)
"""More than any disk has: everything goes that may go."""
NOTHING = Limits(needed_bytes=0, high_water=None)
DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


def blob_count(store: Store) -> int:
    return sum(1 for _ in removing.all_blobs(store))


def make_old(path: Path, seconds: float = 2 * DAY) -> None:
    found = path.stat()
    os.utime(path, (found.st_mtime - seconds, found.st_mtime - seconds))


def test_where_there_is_room_trees_stay(store: Store):
    published(store)
    done = collect(store, keep=(), limits=NOTHING)
    assert (done.freed, done.trees, done.blobs) == (0, [], 0)
    assert is_whole(store)


def test_a_tree_nobody_uses_goes_with_its_blobs_and_its_marks(store: Store):
    published(store)
    using.use(store, NAME, "pod")
    using.release(store, NAME, "pod")
    done = collect(store, keep=(), limits=ALL)
    assert done.trees == [NAME]
    assert done.blobs == 3
    assert done.freed >= 8002
    assert trees.find(store, NAME) is None
    assert blob_count(store) == 0
    assert not (store.used / NAME).exists()
    assert litter(store) == []


@pytest.mark.parametrize("damage", [pytest.param(b"{", id="damaged"), pytest.param(None, id="without a marker")])
def test_a_damaged_tree_nobody_uses_goes_with_its_blobs(store: Store, damage: bytes | None):
    published(store)
    (store.tree(NAME) / "manifest.json").unlink()
    if damage is not None:
        (store.tree(NAME) / "manifest.json").write_bytes(damage)
    assert collect(store, keep=(), limits=ALL).trees == [NAME]
    assert blob_count(store) == 0


def test_what_is_to_be_kept_is_kept_and_what_it_shares_too(store: Store):
    published(store)
    published(store, {**CONTENTS, "config.json": b"{1}"}, OTHER)
    assert collect(store, keep=[NAME], limits=ALL).trees == [OTHER]
    assert is_whole(store)
    assert blob_count(store) == 3


def test_what_is_used_stays_until_it_is_released(store: Store):
    published(store)
    assert using.use(store, NAME, "pod") is not None
    assert collect(store, keep=(), limits=ALL).trees == []
    using.release(store, NAME, "pod")
    assert collect(store, keep=(), limits=ALL).trees == [NAME]


def test_what_is_being_fetched_stays(store: Store):
    published(store)
    (store.partials / f"{NAME}-00.data").write_bytes(b"x")
    pending.announce(store, NAME, manifest_for({"a": b"announced"}))
    adopt(store, b"announced")
    with leases.waiting(store, NAME, until=lambda: False):
        assert collect(store, keep=(), limits=ALL).trees == []
        assert (store.partials / f"{NAME}-00.data").exists()
        assert store.blob(sha256(b"announced")).exists()
    collect(store, keep=(), limits=ALL)
    assert not (store.partials / f"{NAME}-00.data").exists()
    assert not store.blob(sha256(b"announced")).exists()
    assert litter(store) == []


def test_the_longest_unused_goes_first_and_no_more_than_must(store: Store, monkeypatch: pytest.MonkeyPatch):
    names = [f"{number:032x}" for number in range(4)]
    for number, name in enumerate(names):
        published(store, {"a": bytes([number]) * 100}, name)
    for age, name in enumerate([names[2], names[0], names[3], names[1]]):
        using.mark_used(store, name, "pod")
        using.release(store, name, "pod")
        make_old(store.used / name / ".last", DAY - age)
        make_old(store.tree(name) / "manifest.json", 2 * DAY)
    monkeypatch.setattr("inference_cache_artifacts.store.rounds.space.free_bytes", lambda _: 1000 - 100 * blob_count(store))
    assert collect(store, keep=(), limits=Limits(needed_bytes=800, high_water=None)).trees == [names[2], names[0]]


def test_blobs_that_nothing_refers_to_go_even_where_there_is_room(store: Store):
    adopt(store, b"left over")
    pending.announce(store, NAME, manifest_for({"a": b"announced"}))
    adopt(store, b"announced")
    pending.announce_also(store, NAME, sha256(b"too"))
    adopt(store, b"too")
    assert collect(store, keep=(), limits=NOTHING).blobs == 1
    assert blob_count(store) == 2


def test_what_a_dead_fetch_left_is_kept_for_a_day(store: Store):
    pending.announce(store, NAME, manifest_for({"a": b"announced"}))
    adopt(store, b"announced")
    paths = [store.partials / f"{NAME}-00.data", store.partials / f"{NAME}-00.journal", store.pending / NAME]
    for path in paths[:2]:
        path.write_text("x")
    collect(store, keep=(), limits=NOTHING)
    assert len(litter(store)) == 3
    make_old(paths[0])
    make_old(paths[2])
    collect(store, keep=(), limits=NOTHING)
    assert litter(store) == [paths[0].name, paths[1].name]
    make_old(paths[1])
    collect(store, keep=(), limits=NOTHING)
    assert litter(store) == []
    assert blob_count(store) == 0


def test_a_line_cut_off_by_a_kill_protects_nothing_else(store: Store):
    pending.announce(store, NAME, manifest_for({"a": b"a"}))
    with (store.pending / NAME).open("a") as file:
        file.write("abc")
    assert pending.hashes(store) == {sha256(b"a")}


def test_a_mark_that_comes_from_another_node_while_a_tree_is_taken_away_puts_it_back(store: Store, monkeypatch: pytest.MonkeyPatch):
    published(store)
    take_away = sweeping.take_away

    def marked_meanwhile(*arguments):
        using.mark_used(store, NAME, "pod")
        return take_away(*arguments)

    monkeypatch.setattr(sweeping, "take_away", marked_meanwhile)
    monkeypatch.setattr(locking, "try_lock", lambda *_: None)
    assert collect(store, keep=(), limits=ALL).trees == []
    assert is_whole(store)


def test_using_what_is_not_there_leaves_no_mark(store: Store):
    assert using.use(store, NAME, "pod") is None
    assert using.users(store, NAME) == frozenset()


@pytest.mark.parametrize("holder", ["", ".last", "../x", "a/b", "x" * 254])
def test_a_holder_is_a_plain_name(store: Store, holder: str):
    with pytest.raises(Exception, match="cannot be the name"):
        using.mark_used(store, NAME, holder)


def test_the_collector_waits_for_who_publishes_and_goes_on_without(store: Store):
    order: list[str] = []
    with locking.shared(store):
        waiting = threading.Thread(target=lambda: order.append(f"collected {len(collect(store, keep=(), limits=NOTHING).trees)}"))
        waiting.start()
        with locking.alone(store, 0.2) as had:
            assert not had
        order.append("published")
    waiting.join()
    assert order == ["published", "collected 0"]


def test_litter_goes_when_nobody_is_at_it_and_stays_while_somebody_is(store: Store):
    (store.trees / f".tmp-{NAME}-00" / "files").mkdir(parents=True)
    (store.trees / f".gone-{OTHER}-00" / "files").mkdir(parents=True)
    with leases.waiting(store, NAME, until=lambda: False):
        sweeping.sweep(store)
        assert litter(store) == [f".tmp-{NAME}-00", f"{NAME}.1"]
    sweeping.sweep(store)
    assert litter(store) == []


def test_the_lease_of_another_kernel_protects_until_it_is_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch):
    published(store)
    monkeypatch.setattr(lease_files, "boot_id", lambda: "another")
    with leases.waiting(store, NAME, until=lambda: False):
        monkeypatch.undo()
        assert collect(store, keep=(), limits=ALL).trees == []
        make_old(store.leases / f"{NAME}.1", lease_files.SILENT_SECONDS + 60)
        assert collect(store, keep=(), limits=ALL).trees == [NAME]


@pytest.mark.parametrize(
    ("free", "limits", "goal"),
    [
        pytest.param(20, Limits(), 0, id="below high water"),
        pytest.param(10, Limits(), 25, id="above high water"),
        pytest.param(10, Limits(needed_bytes=40), 40, id="more is needed"),
        pytest.param(10, Limits(needed_bytes=4, high_water=None), 4, id="no high water"),
    ],
)
def test_how_much_room_is_made(free: int, limits: Limits, goal: int):
    assert goal_bytes(Room(free, 100, None), limits) == goal
