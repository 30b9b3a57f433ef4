"""The version state machine, scene by scene."""

import pytest
from tests.operator.version_scenes import NOW, PlayedPod, Scene, resource, with_pods

from inference_cache_operator.versions.state import read_state, write_state


def flushes(scene: Scene) -> list[tuple[str, float | None]]:
    return [(each.value, each.time) for each in scene.state.flushes]


def test_the_first_version_is_active_at_once() -> None:
    scene = Scene()
    scene.look()
    assert (scene.state.active, scene.state.phase, scene.state.updating) == ("v1", "Stable", None)


def test_a_bump_updates_while_pods_of_the_old_version_stay() -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    decision = scene.look()
    assert (scene.state.phase, scene.state.active, scene.state.updating) == ("Updating", "v1", "v2")
    assert decision.may_roll
    assert decision.orders == ()
    assert scene.state.rollout.started_at == NOW


def test_it_drains_while_the_old_pods_end() -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    scene.look()
    for pod in scene.pods.values():
        pod.ending = True
    scene.pods["new"] = PlayedPod("v2")
    decision = scene.look()
    assert (scene.state.phase, scene.state.active) == ("Draining", "v1")
    assert decision.orders == ()


def test_the_flush_waits_for_the_last_old_pod_to_end_though_it_serves_no_hits_any_more() -> None:
    scene = with_pods("v1", count=1)
    scene.spec(version="v2")
    scene.look()
    scene.pods["v1-0"].ending = scene.pods["v1-0"].draining = True
    scene.pods["new"] = PlayedPod("v2")
    decision = scene.look()
    assert (scene.state.phase, scene.state.active, decision.orders) == ("Draining", "v1", ())
    del scene.pods["v1-0"]
    decision = scene.look()
    assert (scene.state.phase, scene.state.active) == ("Flushing", "v2")
    assert [(each.target, each.value) for each in decision.orders] == [("version", "v1")]


@pytest.mark.parametrize("answers", [pytest.param(True, id="draining"), pytest.param(False, id="silent")])
def test_an_old_pod_that_should_long_be_gone_does_not_hold_the_flush_up(answers: bool) -> None:
    scene = with_pods("v1", count=1)
    scene.spec(version="v2")
    scene.look()
    scene.pods = {"old": PlayedPod("v1", ending=True, draining=answers, answers=answers, overdue=True), "new": PlayedPod("v2")}
    scene.look()
    assert (scene.state.phase, scene.state.active) == ("Flushing", "v2")


def test_the_old_version_is_flushed_and_counted_when_its_pods_are_gone() -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    scene.look()
    scene.replace_pods("v2")
    decision = scene.look()
    assert scene.state.phase == "Flushing"
    scene.carry_out(decision, keys=41)
    scene.look()
    assert (scene.state.phase, scene.state.active, scene.state.flushes) == ("Stable", "v2", ())
    assert [(each.version, each.keys) for each in scene.state.flushed] == [("v1", 41)]
    assert scene.said == ["VersionChangeStarted", "VersionChanged", "Flushed"]


def test_stores_of_their_own_add_up_what_they_flushed() -> None:
    scene = with_pods("v1", redis=False)
    scene.spec(version="v2", redis=False)
    scene.replace_pods("v2")
    scene.carry_out(scene.look(), keys=5)
    scene.look()
    assert [each.keys for each in scene.state.flushed] == [10]


def test_an_order_stays_until_every_live_sidecar_has_done_it() -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    scene.replace_pods("v2")
    decision = scene.look()
    first, second = scene.pods.values()
    first.done = {decision.orders[0].id: 3}
    assert scene.look().orders == decision.orders
    second.done = {decision.orders[0].id: None}
    assert scene.look().orders == decision.orders
    second.done = {decision.orders[0].id: 3}
    assert scene.look().orders == ()


@pytest.mark.parametrize(
    ("ready", "waits"),
    [pytest.param(True, True, id="ready-and-silent-is-waited-for"), pytest.param(False, False, id="neither-ready-nor-answering-is-not")],
)
def test_a_silent_sidecar(ready: bool, waits: bool) -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    scene.replace_pods("v2")
    scene.pods["silent"] = PlayedPod("v2", ready=ready, answers=False)
    scene.carry_out(scene.look())
    assert bool(scene.look().orders) == waits


@pytest.mark.parametrize(
    "apart",
    [
        pytest.param(PlayedPod("v1", ready=False, answers=False, running=True), id="is-slow-for-a-moment"),
        pytest.param(PlayedPod("v1", ending=True), id="ends-without-draining"),
        pytest.param(PlayedPod("v1", ending=True, answers=False), id="ends-and-does-not-answer"),
    ],
)
def test_a_flush_is_not_done_while_a_sidecar_that_may_still_serve_has_not_done_it(apart: PlayedPod) -> None:
    scene = with_pods("v1", request=None)
    scene.pods["apart"] = apart
    scene.spec(request="now")
    (order,) = scene.look().orders
    for uid, each in scene.pods.items():
        each.done = {} if uid == "apart" else {order.id: 1}
    assert [each.id for each in scene.look().orders] == [order.id]
    apart.done, apart.answers = {order.id: 1}, True
    assert scene.look().orders == ()
    assert [each.version for each in scene.state.flushed] == [""]


def test_a_pod_that_drains_or_should_long_be_gone_holds_no_flush_up() -> None:
    scene = with_pods("v1")
    scene.pods["drains"] = PlayedPod("v1", ending=True, draining=True)
    scene.pods["gone"] = PlayedPod("v1", ending=True, overdue=True, answers=False)
    scene.spec(request="now")
    (order,) = scene.look().orders
    for uid in ("v1-0", "v1-1"):
        scene.pods[uid].done = {order.id: 1}
    assert scene.look().orders == ()


def test_without_a_sidecar_the_flush_waits_for_the_next_one_that_starts() -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    scene.pods.clear()
    decision = scene.look()
    assert decision.waiting_for_sidecar
    assert scene.state.active == "v2"
    scene.pods["new"] = PlayedPod("v2")
    scene.settle()
    assert [each.version for each in scene.state.flushed] == ["v1"]


def test_a_rollback_during_the_rollout_finds_the_old_version_warm() -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    scene.look()
    scene.pods["new"] = PlayedPod("v2")
    scene.look()
    scene.spec(version="v1")
    scene.look()
    assert (scene.state.phase, scene.state.active, scene.state.updating) == ("Updating", "v1", "v1")
    del scene.pods["new"]
    scene.settle()
    assert scene.state.phase == "Stable"
    assert [order.value for order in scene.given] == ["v2"]


def test_a_rollback_within_retain_finds_the_old_version_warm() -> None:
    scene = with_pods("v1", retain="1h")
    scene.spec(version="v2")
    scene.replace_pods("v2")
    scene.settle()
    assert (scene.state.phase, flushes(scene)) == ("Stable", [("v1", NOW)])
    scene.now += 3599
    scene.spec(version="v1")
    scene.replace_pods("v1")
    scene.settle()
    scene.now += 3599
    scene.look()
    assert scene.given == []
    assert flushes(scene) == [("v2", NOW + 3599)]


def test_after_retain_the_old_version_is_flushed() -> None:
    scene = with_pods("v1", retain="1h")
    scene.spec(version="v2")
    scene.replace_pods("v2")
    scene.settle()
    scene.now += 3600
    assert [each.value for each in scene.look().orders] == ["v1"]
    assert scene.state.phase == "Flushing"


def test_a_bump_midway_flushes_both_older_versions_in_the_end() -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    scene.look()
    scene.pods["second"] = PlayedPod("v2")
    scene.look()
    scene.spec(version="v3")
    scene.look()
    assert (scene.state.active, scene.state.updating) == ("v1", "v3")
    scene.replace_pods("v3")
    scene.settle()
    assert sorted(each.version for each in scene.state.flushed) == ["v1", "v2"]
    assert (scene.state.phase, scene.state.active) == ("Stable", "v3")


def test_an_old_pod_that_comes_back_after_the_flush_is_flushed_for_again_under_another_id() -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    scene.replace_pods("v2")
    scene.settle()
    scene.now += 60
    scene.pods["back"] = PlayedPod("v1")
    scene.look()
    assert (scene.state.phase, scene.state.active, flushes(scene)) == ("Updating", "v2", [("v1", None)])
    del scene.pods["back"]
    scene.settle()
    assert [order.value for order in scene.given] == ["v1", "v1"]
    assert len({order.id for order in scene.given}) == 2


def test_an_old_pod_that_comes_back_while_its_version_is_flushed_stops_the_order() -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    scene.replace_pods("v2")
    assert scene.look().orders != ()
    scene.pods["back"] = PlayedPod("v1")
    assert scene.look().orders == ()


def test_immediate_flushes_what_pods_serve_though_another_bump_came_between() -> None:
    scene = with_pods("v1")
    scene.spec(version="v2")
    scene.look()
    scene.spec(version="v3", flush="Immediate")
    decision = scene.look()
    assert [(each.target, each.value) for each in decision.orders] == [("version", "v1"), ("version", "v2")]
    assert not decision.may_roll


def test_an_immediate_flush_is_finished_though_the_next_bump_asks_for_none() -> None:
    scene = with_pods("v1", flush="Immediate")
    scene.spec(version="v2")
    first = scene.look().orders
    scene.spec(version="v3", flush="AfterRollout")
    assert scene.look().orders == first


def test_immediate_flushes_first_and_rolls_when_every_sidecar_has_acknowledged() -> None:
    scene = with_pods("v1", flush="Immediate")
    scene.spec(version="v2")
    decision = scene.look()
    assert [(each.target, each.value) for each in decision.orders] == [("version", "v1")]
    assert not decision.may_roll
    first, second = scene.pods.values()
    first.done = {decision.orders[0].id: 3}
    assert not scene.look().may_roll
    second.done = {decision.orders[0].id: None}
    assert scene.look().may_roll
    scene.replace_pods("v2")
    scene.settle()
    assert [each.version for each in scene.state.flushed] == ["v1", "v1"]


def test_pods_do_not_roll_before_the_artifacts_are_there() -> None:
    scene = with_pods("v1")
    scene.preloaded = False
    scene.spec(version="v2")
    decision = scene.look()
    assert (scene.state.phase, scene.state.active, decision.may_roll) == ("Preloading", "v1", False)
    scene.pods.clear()
    assert scene.look().orders == ()
    assert scene.state.active == "v1"
    scene.preloaded = True
    scene.replace_pods("v2")
    scene.settle()
    assert (scene.state.phase, scene.state.active) == ("Stable", "v2")


def test_the_active_versions_artifacts_are_remembered_until_another_is_active() -> None:
    def remembered() -> list[str]:
        return [each["source"] for each in scene.state.artifacts]

    scene = with_pods("v1", source="s3://m/v1/")
    assert remembered() == ["s3://m/v1/"]
    scene.spec(version="v1", source="s3://other/v1/")
    scene.settle()
    assert remembered() == ["s3://other/v1/"]
    scene.spec(version="v2", source="s3://m/v2/")
    scene.settle()
    assert (scene.state.phase, remembered()) == ("Updating", ["s3://other/v1/"])
    scene.spec(version="v3", source="s3://m/v3/")
    scene.settle()
    assert remembered() == ["s3://other/v1/"]
    scene.replace_pods("v3")
    scene.settle()
    assert (scene.state.active, remembered()) == ("v3", ["s3://m/v3/"])
    scene.spec(version="v3")
    scene.settle()
    assert remembered() == []
    assert "activeArtifacts" not in write_state(scene.state)


def test_a_flush_request_flushes_everything_once_per_value() -> None:
    scene = with_pods("v1")
    for value in ("a", "a", "b", "a"):
        scene.now += 60
        scene.spec(request=value)
        scene.settle()
    assert [order.target for order in scene.given] == ["all", "all", "all"]
    assert len({order.id for order in scene.given}) == 3
    assert scene.state.last_request == "a"


def test_two_flush_requests_of_one_second_are_two_orders() -> None:
    scene = with_pods("v1")
    for value in ("a", "b", "a"):
        scene.spec(request=value)
        scene.settle()
    assert len({order.id for order in scene.given}) == 3
    assert len(scene.state.flushed) == 3


def test_only_the_last_ten_flushes_are_told() -> None:
    scene = with_pods("v0")
    for number in range(1, 15):
        scene.now += 60
        scene.spec(version=f"v{number}")
        scene.replace_pods(f"v{number}")
        scene.settle()
    assert [each.version for each in scene.state.flushed] == [f"v{number}" for number in range(4, 14)]


def test_pods_that_are_only_injected_otherwise_are_replaced_without_a_change_of_version() -> None:
    scene = with_pods("v1")
    assert scene.state.rollout.started_at is None
    scene.outdated = 1
    assert scene.look().may_roll
    assert (scene.state.phase, scene.state.rollout.started_at, scene.state.rollout.drained_at) == ("Stable", NOW, None)
    scene.outdated, scene.now = 0, NOW + 9
    scene.look()
    assert scene.state.rollout.drained_at == NOW + 9


def test_a_state_survives_the_status() -> None:
    scene = with_pods("v1", retain="1h")
    scene.spec(version="v2", request="x")
    scene.settle()
    assert read_state(write_state(scene.state)) == scene.state


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="empty"),
        pytest.param({"phase": "Odd", "flushes": 3, "rollout": [], "flushedVersions": [{}, 1]}, id="mangled"),
        pytest.param({"flushes": [{"id": "x", "target": "version", "value": "v", "time": "never"}]}, id="no-time"),
    ],
)
def test_any_status_can_be_read(status: dict[str, object]) -> None:
    assert read_state(status).phase == "Stable"


def test_resource_of_the_scenes_is_as_submitted() -> None:
    assert resource("v9").version == "v9"
