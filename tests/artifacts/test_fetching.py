"""Whole fetches over HTTP from a server that fails on demand: a tree is published whole and right, or not at all."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.artifacts import fetched
from tests.artifacts.fault_server import FaultServer, fault_server

from inference_cache_artifacts import resolving
from inference_cache_artifacts.errors import (
    ArtifactError,
    BadManifest,
    Corrupt,
    Forbidden,
    Missing,
    TimedOut,
    Unreachable,
    Unverifiable,
)
from inference_cache_artifacts.fetching import fetch
from inference_cache_artifacts.manifest import FILE_NAME
from inference_cache_artifacts.progress import Progress, Silent
from inference_cache_artifacts.request import Limits, Request
from inference_cache_artifacts.sources.options import SourceOptions
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree
from inference_cache_artifacts.transfer import limiting, pieces, schedule
from inference_cache_artifacts.transfer import mirrors as mirrors_module

pytestmark = pytest.mark.services
MODEL = fetched.model()
SIZE = sum(map(len, MODEL.values()))
OPTIONS = SourceOptions(read_timeout_seconds=60.0)
SEVERAL = Limits().connections
BY_ONE_AND_BY_SEVERAL = pytest.mark.parametrize("connections", [pytest.param(1, id="one"), pytest.param(SEVERAL, id="several")])


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces, and little time between attempts."""
    monkeypatch.setattr(schedule, "PIECE_BYTES", 1 << 20)
    for module in (pieces, resolving):
        monkeypatch.setattr(module, "backoff_seconds", lambda failures, after=None: limiting.backoff_seconds(failures, after, 0.01, 0.1))


@pytest.fixture
def tiny_pieces(hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half way, most of what is left has been asked of nobody, however many connections there are."""
    monkeypatch.setattr(schedule, "PIECE_BYTES", 1 << 16)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def request(*sources: str, **more: object) -> Request:
    return replace(Request(sources, "v1", options=OPTIONS), **more)  # type: ignore[arg-type]


def ask(store: Store, *sources: str, progress: Progress | None = None, **more: object) -> Tree:
    return fetch(request(*sources, **more), store, progress or Silent())


def test_a_model_comes_whole_and_once(web: FaultServer, files: Path, store: Store) -> None:
    made = fetched.put(files, MODEL)
    tree = ask(store, web.url)
    assert fetched.content(tree) == MODEL
    assert (tree.digest, tree.size, tree.count) == (made.digest, SIZE, len(MODEL))
    assert web.sent_bytes == SIZE + len(made.text())
    assert fetched.litter(store) == []


def test_what_is_there_asks_nobody(web: FaultServer, files: Path, store: Store) -> None:
    fetched.put(files, MODEL)
    first = ask(store, web.url)
    web.forget()
    assert ask(store, web.url) == first
    assert web.requests == []


def test_thirty_two_flipped_bytes_are_found_and_nothing_is_published(web: FaultServer, files: Path, store: Store) -> None:
    fetched.put(files, MODEL)
    chance, found = random.Random(3), 0
    for number in range(32):
        store = Store(store.root.with_name(f"store-{number}"))
        path = chance.choice([path for path, content in MODEL.items() if content])
        web.faults.flip = {path: chance.randrange(len(MODEL[path]))}
        with pytest.raises(Corrupt, match=path) as raised:
            ask(store, web.url)
        found += raised.value.file == path
        assert fetched.nothing_published(store)
    assert found == 32
    web.heal()
    assert fetched.content(ask(store, web.url)) == MODEL


def cut(server: FaultServer) -> None:
    server.faults.cut_after = 300_000


def storm(server: FaultServer) -> None:
    server.faults.refuse_share = 0.5


def burst(server: FaultServer) -> None:
    server.faults.refuse_next, server.faults.retry_after = 8, "0"


def expiring(server: FaultServer) -> None:
    server.faults.redirect, server.faults.redirect_uses = True, 2


def rangeless(server: FaultServer) -> None:
    server.faults.no_ranges = True


@pytest.mark.parametrize("fault", [cut, storm, burst, expiring])
def test_what_goes_wrong_on_the_way_costs_next_to_nothing(
    web: FaultServer, files: Path, store: Store, fault: Callable[[FaultServer], None]
) -> None:
    fetched.put(files, MODEL)
    fault(web)
    progress = fetched.Counting()
    assert fetched.content(ask(store, web.url, progress=progress)) == MODEL
    assert progress.bytes <= 1.05 * SIZE


def test_a_stalled_answer_is_given_up_and_asked_for_again(web: FaultServer, files: Path, store: Store) -> None:
    fetched.put(files, MODEL)
    web.faults.stall_after = 600_000
    # Each answer gives some bytes more before it stalls.
    progress = fetched.Counting()
    tree = ask(store, web.url, progress=progress, options=replace(OPTIONS, read_timeout_seconds=0.3))
    assert fetched.content(tree) == MODEL
    assert progress.bytes <= 1.05 * SIZE


def test_a_dead_first_mirror_is_passed_over(web: FaultServer, files: Path, store: Store, tmp_path: Path) -> None:
    fetched.put(files, MODEL)
    with fault_server(tmp_path) as gone:
        dead = gone.url
    progress = fetched.Counting()
    assert fetched.content(ask(store, dead, web.url, progress=progress)) == MODEL
    assert progress.bytes <= 1.05 * SIZE


@BY_ONE_AND_BY_SEVERAL
@pytest.mark.usefixtures("tiny_pieces")
def test_a_mirror_that_dies_half_way_leaves_what_it_gave(web: FaultServer, files: Path, store: Store, connections: int) -> None:
    fetched.put(files, MODEL)
    with fault_server(files) as first:

        class Killing(fetched.Counting):
            def received(self, count: int) -> None:
                super().received(count)
                if self.bytes > SIZE / 2:
                    first.faults.refuse_share = 1.0

        progress = Killing()
        tree = ask(store, first.url, web.url, progress=progress, limits=Limits(connections=connections))
        assert fetched.content(tree) == MODEL
        assert progress.bytes <= 1.05 * SIZE
        assert first.sent_bytes > SIZE / 3
        assert web.sent_bytes > 0


def test_a_corrupt_mirror_is_replaced_by_the_next(web: FaultServer, files: Path, store: Store) -> None:
    fetched.put(files, MODEL)
    with fault_server(files) as bad:
        bad.faults.flip = {"model-00001-of-00002.safetensors": 77}
        assert fetched.content(ask(store, bad.url, web.url)) == MODEL


@BY_ONE_AND_BY_SEVERAL
@pytest.mark.usefixtures("tiny_pieces")
def test_an_artifact_that_is_replaced_while_it_is_fetched_is_never_mixed(
    web: FaultServer, files: Path, store: Store, connections: int
) -> None:
    path, old = "model-00001-of-00002.safetensors", bytes(reversed(MODEL["model-00001-of-00002.safetensors"]))
    fetched.put(files, {**MODEL, path: old}, with_manifest=False)
    done = threading.Event()

    class Swapping(fetched.Counting):
        def received(self, count: int) -> None:
            super().received(count)
            if self.bytes > 1 << 20 and not done.is_set():
                done.set()
                web.swap(path, MODEL[path])

    tree = ask(store, web.url, progress=Swapping(), manifest=fetched.manifest(MODEL), limits=Limits(connections=connections))
    assert done.is_set()
    assert fetched.content(tree) == MODEL


def test_an_artifact_whose_manifest_names_what_is_no_more_ends_as_corrupt(web: FaultServer, files: Path, store: Store) -> None:
    fetched.put(files, MODEL)
    web.swap("config.json", b'{"model_type": "LLAMA"}')
    with pytest.raises(Corrupt, match=r"config\.json"):
        ask(store, web.url)
    assert fetched.nothing_published(store)


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        pytest.param(lambda web, files: (files / FILE_NAME).unlink(), Unverifiable, FILE_NAME, id="no manifest"),
        pytest.param(lambda web, files: (files / "config.json").unlink(), Missing, r"config\.json", id="a file is missing"),
        pytest.param(lambda web, files: (files / FILE_NAME).write_text("{"), BadManifest, "no JSON", id="a broken manifest"),
        pytest.param(lambda web, files: setattr(web.faults, "token", "right"), Forbidden, "127.0.0.1", id="no credentials"),
    ],
)
def test_what_is_wrong_with_a_source_is_said(
    web: FaultServer, files: Path, store: Store, spoil: Callable[[FaultServer, Path], None], error: type[ArtifactError], words: str
) -> None:
    fetched.put(files, MODEL)
    spoil(web, files)
    with pytest.raises(error, match=words):
        ask(store, web.url)
    assert fetched.nothing_published(store)


def test_a_pinned_manifest_must_be_that_very_file(web: FaultServer, files: Path, store: Store) -> None:
    fetched.put(files, MODEL)
    with pytest.raises(BadManifest, match="SHA-256"):
        ask(store, web.url, manifest_sha256="0" * 64)


@BY_ONE_AND_BY_SEVERAL
@pytest.mark.usefixtures("tiny_pieces")
def test_a_source_that_stays_away_is_unreachable_and_what_came_stays(
    web: FaultServer, files: Path, store: Store, monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    fetched.put(files, MODEL)
    monkeypatch.setattr(mirrors_module.Mirrors.__init__, "__defaults__", (0.5, mirrors_module.time.monotonic))

    class Leaving(fetched.Counting):
        def received(self, count: int) -> None:
            super().received(count)
            if self.bytes > SIZE / 2:
                web.faults.refuse_share = 1.0

    with pytest.raises(Unreachable, match="503"):
        ask(store, web.url, progress=Leaving(), limits=Limits(connections=connections))
    assert fetched.nothing_published(store)
    web.heal()
    progress = fetched.Counting()
    assert fetched.content(ask(store, web.url, progress=progress)) == MODEL
    assert progress.bytes <= 0.6 * SIZE


def test_a_fetch_may_have_a_time_limit(web: FaultServer, files: Path, store: Store) -> None:
    fetched.put(files, MODEL)
    with pytest.raises(TimedOut):
        ask(store, web.url, limits=Limits(bytes_per_second=500_000.0, timeout_seconds=0.5))
    assert fetched.content(ask(store, web.url)) == MODEL


def test_twenty_callers_at_once_read_the_source_once(web: FaultServer, files: Path, store: Store) -> None:
    made = fetched.put(files, MODEL)
    with ThreadPoolExecutor(20) as pool:
        trees = list(pool.map(lambda _: ask(Store(store.root), web.url), range(20)))
    assert len(set(trees)) == 1
    assert web.sent_bytes == SIZE + len(made.text())


def test_a_version_that_shares_most_of_its_bytes_reads_the_rest_alone(web: FaultServer, files: Path, store: Store, tmp_path: Path) -> None:
    fetched.put(files, MODEL)
    first = ask(store, web.url)
    second_files = tmp_path / "second"
    changed = {**MODEL, "config.json": b"{}", "nested/tokenizer.json": b"[]"}
    fetched.put(second_files, changed)
    with fault_server(second_files) as second:
        progress = fetched.Counting()
        assert fetched.content(ask(store, second.url, progress=progress, version="v2")) == changed
    assert progress.bytes == 4
    assert ask(store, web.url) == first


def test_equal_files_are_fetched_once(web: FaultServer, files: Path, store: Store) -> None:
    twice = {"a": b"x" * 100_000, "b": b"x" * 100_000}
    fetched.put(files, twice)
    progress = fetched.Counting()
    assert fetched.content(ask(store, web.url, progress=progress)) == twice
    assert progress.bytes == 100_000
