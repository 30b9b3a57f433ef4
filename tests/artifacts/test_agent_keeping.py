"""Room on the node's disk: what pods mount stays, whatever room is needed."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.artifacts.fake_source import FakeSource
from tests.artifacts.fetched import manifest, model
from tests.artifacts.played_pod import PlayedPod, ask_for
from tests.artifacts.running_agent import FakeApi, running_agent
from tests.artifacts.stores import NAME, OTHER, is_whole, new_store, published, small_disk

from inference_cache_artifacts.agent import keeping
from inference_cache_artifacts.agent.keeping import Keeper
from inference_cache_artifacts.agent.kubernetes import Access
from inference_cache_artifacts.agent.live import gone_holders, mounted_trees, resource_holders
from inference_cache_artifacts.agent.serving import serving
from inference_cache_artifacts.agent.settings import Settings
from inference_cache_artifacts.handover.protocol import TREE
from inference_cache_artifacts.request import Limits
from inference_cache_artifacts.store import locking, trees, using
from inference_cache_artifacts.store.layout import Store

THIRD = "00112233445566778899aabbccddeeff"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a moment is no API server that does not answer."""
    monkeypatch.setattr(keeping, "_ANSWER_SECONDS", 60.0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """16 MiB."""
    with small_disk(tmp_path / "disk", "16m") as folder:
        yield folder


def filled(root: Path, namespace: str, name: str, size: int, seed: bytes) -> Store:
    store = new_store(root / namespace)
    published(store, {"weights": seed * (size // len(seed))}, name)
    return store


def names(store: Store) -> set[str]:
    return set(trees.names(store))


def eventually(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.services
def test_a_fetch_gets_room_from_what_no_pod_of_the_node_mounts(disk: Path) -> None:
    (disk / "root").mkdir()
    own, other = (filled(disk / "root", each, NAME, 4 * MIB, each.encode() * 2) for each in "ab")
    third = filled(disk / "root", "c", OTHER, 2 * MIB, b"cd")
    api = FakeApi()
    api.mount("b", NAME)
    api.mount("c", OTHER, phase="Succeeded")
    with running_agent(disk, api=api) as agent:
        files = {"weights": bytes(11 * MIB)}
        assert PlayedPod(agent.url).fetched(ask_for(manifest(files)), FakeSource(files)).state == "done"
    assert names(other) == {NAME}
    assert NAME not in names(own)
    assert names(third) == set()
    assert any("fieldSelector=spec.nodeName" in each and "node-1" in each for each in api.requests)


@pytest.mark.services
def test_another_namespaces_trees_stay_where_the_own_ones_are_enough(disk: Path) -> None:
    (disk / "root").mkdir()
    own, other = (filled(disk / "root", each, NAME, 5 * MIB, each.encode() * 2) for each in "ab")
    with running_agent(disk) as agent:
        files = {"weights": bytes(8 * MIB)}
        assert PlayedPod(agent.url).fetched(ask_for(manifest(files)), FakeSource(files)).state == "done"
    assert NAME not in names(own)
    assert names(other) == {NAME}


@pytest.mark.services
def test_where_nobody_knows_what_pods_mount_everything_stays(disk: Path) -> None:
    (disk / "root").mkdir()
    own, other = (filled(disk / "root", each, NAME, 5 * MIB, each.encode() * 2) for each in "ab")
    with running_agent(disk) as agent:
        files = {"weights": bytes(9 * MIB)}
        pod = PlayedPod(agent.url)
        assert pod.request("GET", TREE.format(tree=NAME)).status == 200
        agent.api.is_down = True
        failure = pod.fetched(ask_for(manifest(files)), FakeSource(files)).failure
        assert failure is not None
        assert failure.reason == "NoSpace"
    assert names(own) == names(other) == {NAME}


@pytest.mark.services
def test_above_high_water_trees_go_that_nobody_uses_the_longest_unused_first(disk: Path) -> None:
    (disk / "root").mkdir()
    first = filled(disk / "root", "b", NAME, 4 * MIB, b"xy")
    mounted = filled(disk / "root", "a", OTHER, 4 * MIB, b"vw")
    marked = filled(disk / "root", "a", THIRD, 4 * MIB, b"tu")
    using.mark_used(marked, THIRD, "a.llama")
    api = FakeApi(resources=[resource("a", "llama")])
    api.mount("a", OTHER)
    with running_agent(disk, api=api, round=0.1, high_water=0.6):
        eventually(lambda: names(first) == set())
    assert names(mounted) == {OTHER, THIRD}


@pytest.mark.services
def test_marks_go_with_their_resource(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    store = filled(tmp_path / "root", "a", NAME, 1000, b"x")
    for holder in ("a.llama", "a.gone", "b.llama", "by-hand"):
        using.mark_used(store, NAME, holder)
    api = FakeApi(resources=[resource("a", "llama")])
    with running_agent(tmp_path, api=api, round=0.1):
        eventually(lambda: using.users(store, NAME) == {"a.llama"})


@pytest.mark.services
def test_no_mark_goes_where_the_api_server_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    store = filled(tmp_path / "root", "a", NAME, 1000, b"x")
    using.mark_used(store, NAME, "a.gone")
    api = FakeApi(is_down=True)
    with running_agent(tmp_path, api=api, round=0.05):
        eventually(lambda: sum("inferencecaches" in each for each in api.requests) >= 3)
        assert using.users(store, NAME) == {"a.gone"}


@pytest.mark.services
def test_the_reserve_stays_free(disk: Path) -> None:
    (disk / "root").mkdir()
    with running_agent(disk, limits=Limits(reserve_bytes=10 * MIB)) as agent:
        files = model(big=6 * MIB)
        failure = PlayedPod(agent.url).fetched(ask_for(manifest(files)), FakeSource(files)).failure
    assert failure is not None
    assert failure.reason == "NoSpace"


def resource(namespace: str, name: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}}


def test_only_the_files_of_trees_count_as_mounted() -> None:
    api = FakeApi()
    api.mount("a", NAME)
    api.mount("a", OTHER, phase="Pending")
    api.mount("b", THIRD, phase="Failed")
    api.mount("b", "nonsense")
    other = api.pods[0]["spec"]["containers"][0]["volumeMounts"][1] | {"name": "another", "subPath": f"trees/{THIRD}/files"}
    api.pods.append({"metadata": {"namespace": "c"}, "spec": {"containers": [{"volumeMounts": [other]}, {}]}})
    assert mounted_trees({"items": api.pods}) == {"a": {NAME, OTHER}, "b": frozenset(), "c": frozenset()}


def test_a_holder_is_gone_where_it_is_no_resource_of_this_namespace() -> None:
    existing = resource_holders({"items": [resource("a", "x.y"), resource("b", "z")]})
    assert gone_holders(["a.x.y", "a.x", "b.z", "other"], "a", existing) == {"a.x", "b.z", "other"}


@pytest.mark.services
@pytest.mark.parametrize("asked", [pytest.param(2, id="before-it-is-taken-away"), pytest.param(3, id="while-it-can-be-put-back")])
def test_a_tree_stays_that_a_pod_was_admitted_with_meanwhile(tmp_path: Path, asked: int) -> None:
    class Admitting(FakeApi):
        async def answer(self, request: web.Request) -> web.Response:
            lists = sum("/api/v1/pods" in each for each in self.requests) + 1
            if request.path == "/api/v1/pods" and lists == asked:
                self.mount("a", NAME, phase="Pending")
            return await super().answer(request)

    (tmp_path / "root").mkdir()
    store, api = filled(tmp_path / "root", "a", NAME, 1000, b"x"), Admitting()
    with running_agent(tmp_path, api=api, round=0.1, high_water=0.0):
        eventually(lambda: sum("/api/v1/pods" in each for each in api.requests) > asked + 1)
    assert names(store) == {NAME}
    assert is_whole(store)


@pytest.mark.services
def test_trouble_with_one_store_is_none_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    broken, store = (filled(tmp_path / "root", each, NAME, 1000, b"x") for each in "ab")
    using.mark_used(store, NAME, "b.gone")
    shutil.rmtree(broken.used)
    broken.used.write_text("no folder")
    with running_agent(tmp_path, round=0.1, high_water=0.0):
        eventually(lambda: names(store) == set())


async def test_an_agent_whose_work_in_the_background_has_ended_ends_and_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(keeper: Keeper) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Keeper, "look", broken)
    died = asyncio.Event()
    with pytest.raises(RuntimeError, match="a fault"):
        async with serving(Settings(tmp_path, "node-1"), Access("http://127.0.0.1:9"), "127.0.0.1", 0, died.set), asyncio.timeout(60):
            await died.wait()


@pytest.mark.services
def test_an_agent_ends_soon_while_others_publish(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    stores, api = [filled(tmp_path / "root", each, NAME, 1000, b"x") for each in "abc"], FakeApi()
    with ExitStack() as publishing:
        for each in stores:
            publishing.enter_context(locking.shared(each))
        with running_agent(tmp_path, api=api, high_water=0.0):
            eventually(lambda: any("/api/v1/pods" in each for each in api.requests))
            began = time.monotonic()
    assert time.monotonic() - began < 25


@pytest.mark.services
def test_a_tree_stays_while_its_pod_is_told_of_it(tmp_path: Path) -> None:
    files = model(big=4 * MIB)
    source, ask = FakeSource(files), ask_for(manifest(files), holder="a.x")
    with running_agent(tmp_path, api=FakeApi(resources=[resource("a", "x")]), round=0.01, high_water=0.0) as agent:
        assert PlayedPod(agent.url).fetched(ask, source).state == "done"
        assert names(agent.store("a")) == {ask.tree}
    assert source.sent == sum(map(len, files.values()))
