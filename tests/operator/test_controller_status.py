"""The status: conditions as kstatus reads them."""

from dataclasses import replace
from typing import Any

import pytest
from tests.operator.test_audit import pod, resource

from inference_cache_operator.audit.images import PullFailure, is_withheld
from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.audit.repair import Leave, Wait
from inference_cache_operator.audit.standing import Audited, Standing
from inference_cache_operator.prefetch.outcome import Prefetched
from inference_cache_operator.resource import Resource
from inference_cache_operator.status import Observed, status_of
from inference_cache_operator.versions.state import State
from inference_cache_operator.versions.step import Decision
from inference_cache_operator.versions.times import text_of

NOW = 1_800_000_000.0


def seen(**changes: Any) -> Observed:
    state = State(active="v1")
    fine = Observed(
        resource=resource(),
        audited=[Audited(pod(), Standing.INJECTED)],
        decision=Decision(state, (), may_roll=True, waiting_for_sidecar=False, said=()),
        repairs=[],
        sidecars={},
        unacknowledged=0,
        unheard=None,
        barred=None,
        configured=1,
        rivals=[],
        lost=0,
        pull_failure=None,
        prefetched=Prefetched(),
    )
    return replace(fine, **changes)


def looked_at(seconds: float, reason: str = "FirstLook") -> Resource:
    """So long ago."""
    reconciling = {"type": "Reconciling", "status": "True", "reason": reason, "lastTransitionTime": text_of(NOW - seconds)}
    return replace(resource(), status={"conditions": [reconciling]})


def conditions(observed: Observed) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in status_of(observed, NOW)["conditions"]}


@pytest.mark.parametrize(
    ("changes", "ready", "reconciling", "stalled"),
    [
        pytest.param({}, ("True", "Ready"), "False", "False", id="all-well"),
        pytest.param({"audited": [], "resource": looked_at(4)}, ("True", "NoPods"), "False", "False", id="no-pods"),
        pytest.param({"audited": [], "resource": looked_at(3)}, ("False", "FirstLook"), "True", "False", id="no-pods-yet"),
        pytest.param({"audited": []}, ("False", "FirstLook"), "True", "False", id="first-look"),
        pytest.param({"audited": [], "resource": looked_at(1, "Done")}, ("True", "NoPods"), "False", "False", id="pods-are-gone"),
        pytest.param({"unacknowledged": 1}, ("False", "ApplyingConfiguration"), "True", "False", id="applying"),
        pytest.param({"repairs": [Wait("WaitingForTemplate", "m")]}, ("False", "WaitingForTemplate"), "True", "False", id="waiting"),
        pytest.param({"repairs": [Leave("Manual", "m")]}, ("False", "Manual"), "True", "False", id="manual"),
        pytest.param({"repairs": [Leave("WouldInterrupt", "m")]}, ("False", "WouldInterrupt"), "False", "True", id="would-interrupt"),
        pytest.param({"barred": pod()}, ("False", "ConfigurationNotWritten"), "False", "True", id="barred"),
        pytest.param({"pull_failure": PullFailure("i", False)}, ("False", "ImagePullFailed"), "False", "True", id="image"),
        pytest.param({"pull_failure": PullFailure("i", True)}, ("False", "ImagePullTrial"), "False", "True", id="trial"),
        pytest.param({"audited": [], "lost": 1, "rivals": ["o"]}, ("False", "Conflicted"), "False", "True", id="lost-all"),
        pytest.param(
            {"audited": [Audited(pod(ready=False), Standing.INJECTED)]}, ("False", "PodsStarting"), "True", "False", id="starting"
        ),
    ],
)
def test_conditions_say(changes: dict[str, Any], ready: tuple[str, str], reconciling: str, stalled: str) -> None:
    said = conditions(seen(**changes))
    assert (said["Ready"], said["Reconciling"][0], said["Stalled"][0]) == (ready, reconciling, stalled)


def test_a_time_changes_only_with_the_status() -> None:
    first = status_of(seen(), NOW)
    again = status_of(seen(resource=replace(resource(), status=first)), NOW + 60)
    assert again == first
    later = status_of(seen(resource=replace(resource(), status=first), unacknowledged=1), NOW + 60)
    changed = {each["type"] for each, before in zip(later["conditions"], first["conditions"], strict=True) if each != before}
    moved = {
        each["type"]
        for each, before in zip(later["conditions"], first["conditions"], strict=True)
        if each["lastTransitionTime"] != before["lastTransitionTime"]
    }
    assert changed == moved == {"Ready", "Reconciling"}


def test_the_webhook_understands_what_the_status_says_of_an_image() -> None:
    assert is_withheld(status_of(seen(pull_failure=PullFailure("i", False)), NOW), "i")
    assert not is_withheld(status_of(seen(pull_failure=PullFailure("i", True)), NOW), "i")


def messages(observed: Observed) -> dict[str, str]:
    return {each["type"]: each["message"] for each in status_of(observed, NOW)["conditions"]}


def test_a_sidecar_that_does_not_answer_is_named_with_its_address() -> None:
    said = messages(seen(unacknowledged=1, unheard=pod("mute")))
    assert "no answer from pod mute at 10.0.0.1:9180: does a NetworkPolicy bar the operator?" in said["Reconciling"]


def test_pods_of_another_operator_version_are_told_and_hold_nothing_up() -> None:
    lagging = Audited(pod(), Standing.OUTDATED, lags=True)
    observed = seen(audited=[lagging])
    said = conditions(observed)
    assert (said["Ready"], said["Reconciling"][0], said["Stalled"][0]) == (("True", "Ready"), "False", "False")
    assert said["RolloutComplete"] == ("False", "PodsOutdated")
    assert messages(observed)["RolloutComplete"].startswith("1 of 1; 1 of them have the sidecar of another operator version: roll")


def test_a_long_message_is_cut_to_what_kubernetes_takes() -> None:
    refused = Audited(pod(injection=None), Standing.REFUSED, "x" * 100_000)
    assert all(len(message) <= 32_768 for message in messages(seen(audited=[refused])).values())


def unscheduled(message: str = "0/1 nodes are available: insufficient cpu") -> Pod:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return read_pod({**pod("new").body, "status": {"conditions": [condition]}})


def test_why_a_pod_does_not_start_is_told() -> None:
    old, new = Audited(pod("old"), Standing.OUTDATED), Audited(unscheduled(), Standing.INJECTED)
    rolling = seen(audited=[old, new], repairs=[Wait("RolloutInProgress", "Deployment vllm is replacing its pods")])
    for kind, observed in (("RolloutComplete", rolling), ("Reconciling", rolling), ("Reconciling", seen(audited=[new]))):
        assert messages(observed)[kind].endswith("; pod new: 0/1 nodes are available: insufficient cpu")


def test_what_the_scheduler_says_at_length_is_cut() -> None:
    message = messages(seen(audited=[Audited(unscheduled("x" * 1000), Standing.INJECTED)]))["Reconciling"]
    assert (len(message), message[-1]) == (300, "…")


def test_how_many_pods_are_refused_is_told_and_the_first_of_them() -> None:
    refused = [Audited(pod(name, injection=None), Standing.REFUSED, "serves by TLS") for name in ("a", "b", "c")]
    assert messages(seen(audited=refused[:1]))["Stalled"] == "a: serves by TLS"
    several = messages(seen(audited=refused))["Stalled"]
    assert several == "a: serves by TLS; and 2 more: see the events of `kubectl describe inferencecache faq`"


@pytest.mark.parametrize(
    ("rivals", "lost", "message"),
    [
        pytest.param(["o"], 0, "o selects the same pods; this one, being older, wins", id="one-younger"),
        pytest.param(["o"], 1, "o selects the same pods; it, being older, wins", id="one-older"),
        pytest.param(["o", "p"], 1, "o, p select the same pods; they, being older, win", id="two-older"),
    ],
)
def test_rivals_are_told_by_name(rivals: list[str], lost: int, message: str) -> None:
    assert messages(seen(rivals=rivals, lost=lost))["Conflicted"] == message
