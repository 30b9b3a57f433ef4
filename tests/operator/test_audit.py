"""How pods stand, and what would put them right: tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from inference_cache_contract.pod import (
    CACHE_ANNOTATION,
    INJECT_ANNOTATION,
    INJECTION_ANNOTATION,
    ROLLOUT_ANNOTATION,
    SIDECAR_CONTAINER,
    VERSION_ANNOTATION,
)
from inference_cache_operator.audit import images
from inference_cache_operator.audit.images import pull_failure
from inference_cache_operator.audit.pods import Pod, read_pod
from inference_cache_operator.audit.repair import Evict, Leave, Means, Roll, Wait, Ward, confirmed, repair
from inference_cache_operator.audit.standing import Audited, Standing, audit
from inference_cache_operator.audit.workloads import Workload, interruption, is_rolling, read_workload, template_digest, trigger_value
from inference_cache_operator.resource import Resource

NOW = 1_800_000_000.0
STARTED = NOW - 1000
CREATED = "2026-01-01T00:00:00Z"
IMAGE = "registry.example/sidecar:1"


@dataclass(frozen=True, slots=True)
class Injection:
    """Refuses images with `odd` in their names."""

    def is_injected(self, pod: Mapping[str, Any]) -> bool:
        return INJECTION_ANNOTATION in pod["metadata"].get("annotations", {})

    def digest(self, resource: Resource) -> str:
        return "current"

    def refusal(self, pod: Mapping[str, Any], resource: Resource) -> str | None:
        return "is odd" if "odd" in pod["spec"]["containers"][0]["image"] else None

    def has_other_files(self, pod: Mapping[str, Any], resource: Resource) -> bool:
        return "files-of-v0" in pod["spec"]["containers"][0]["image"]


def resource(version: str = "v1") -> Resource:
    spec = {"selector": {"matchLabels": {"app": "vllm"}}, "model": {"version": version}}
    return Resource("llm", "faq", "uid", CREATED, 1, spec)


def pod(
    name: str = "p", injection: str | None = "current", version: str = "v1", ready: bool = True, created: str = CREATED, **metadata: Any
) -> Pod:
    injected = {CACHE_ANNOTATION: "faq", VERSION_ANNOTATION: version, INJECTION_ANNOTATION: injection} if injection is not None else {}
    owner = {"kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": True, "apiVersion": "apps/v1"}
    body = {
        "metadata": {
            "namespace": "llm",
            "name": name,
            "uid": name,
            "creationTimestamp": created,
            "ownerReferences": [owner],
            "annotations": {**injected, **metadata.pop("annotations", {})},
            **metadata,
        },
        "spec": {"containers": [{"image": "vllm"}]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}], "podIP": "10.0.0.1"},
    }
    return read_pod(body)


def standing(one: Pod, version: str = "v1") -> Standing:
    return audit([one], resource(version), Injection())[0].standing


@pytest.mark.parametrize(
    ("one", "version", "expected"),
    [
        pytest.param(pod(), "v1", Standing.INJECTED, id="as-it-should-be"),
        pytest.param(pod(injection=None), "v1", Standing.MISSING, id="without-sidecar"),
        pytest.param(pod(injection="old"), "v1", Standing.OUTDATED, id="injected-otherwise"),
        pytest.param(pod(), "v2", Standing.OUTDATED, id="of-another-version"),
        pytest.param(pod(annotations={CACHE_ANNOTATION: "other"}), "v1", Standing.OUTDATED, id="of-another-cache"),
        pytest.param(pod(injection=None, annotations={INJECT_ANNOTATION: "false"}), "v1", Standing.EXCLUDED, id="opted-out"),
    ],
)
def test_a_pod_stands(one: Pod, version: str, expected: Standing) -> None:
    assert standing(one, version) is expected


def test_a_pod_that_injection_refuses_is_refused_and_says_why() -> None:
    body = dict(pod(injection=None).body)
    refused = read_pod({**body, "spec": {"containers": [{"image": "odd"}]}})
    assert audit([refused], resource(), Injection()) == [Audited(refused, Standing.REFUSED, "is odd")]


def test_a_pod_that_cannot_have_the_sidecar_is_replaced_for_other_files() -> None:
    body = dict(pod(injection=None).body)
    refused = read_pod({**body, "spec": {"containers": [{"image": "odd files-of-v0"}]}})
    (audited,) = audit([refused], resource(), Injection())
    assert (audited.standing, audited.to_replace) == (Standing.REFUSED, True)


def test_a_pod_that_only_another_installation_would_inject_otherwise_is_outdated_and_not_replaced() -> None:
    class Upgraded(Injection):
        def digest(self, resource: Resource) -> str:
            return "asked.new"

    lagging, asking = audit([pod(injection="asked.old"), pod(injection="other.old")], resource(), Upgraded())
    assert (lagging.standing, lagging.to_replace) == (Standing.OUTDATED, False)
    assert (asking.standing, asking.to_replace) == (Standing.OUTDATED, True)
    unmarked = audit([pod(injection="asked.old", version="v0")], resource(), Upgraded())[0]
    assert unmarked.to_replace
    # One that waits for an image which the new installation does not name any more serves nobody, and never would.
    waiting = {"name": SIDECAR_CONTAINER, "state": {"waiting": {"reason": "ErrImagePull"}}}
    waits = read_pod({**pod(injection="asked.old", ready=False).body, "status": {"initContainerStatuses": [waiting]}})
    assert audit([waits], resource(), Upgraded())[0].to_replace


def test_pods_that_have_ended_do_not_count() -> None:
    ended = read_pod({**pod().body, "status": {"phase": "Succeeded"}})
    assert audit([ended], resource(), Injection()) == []


def deployment(replicas: int = 2, rolling: bool = False, annotations: dict[str, str] | None = None, **spec: Any) -> Workload:
    status = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas - rolling, "readyReplicas": replicas}
    template = {"metadata": {"annotations": annotations or {}}, "spec": {"containers": []}}
    body = {
        "metadata": {"namespace": "llm", "name": "vllm", "uid": "w", "generation": 1},
        "spec": {"replicas": replicas, "template": template, **spec},
        "status": status,
    }
    return read_workload("Deployment", body)


def stateful_set(replicas: int = 3, **strategy: Any) -> Workload:
    return replace(deployment(replicas, updateStrategy=strategy), kind="StatefulSet")


def daemon_set(desired: int = 3, **strategy: Any) -> Workload:
    one = deployment(updateStrategy=strategy)
    return replace(
        one, kind="DaemonSet", body={**one.body, "status": {"desiredNumberScheduled": desired, "updatedNumberScheduled": desired}}
    )


def rolling_update(**parts: Any) -> dict[str, Any]:
    return {"strategy": {"type": "RollingUpdate", "rollingUpdate": parts}}


@pytest.mark.parametrize(
    ("workload", "interrupts"),
    [
        pytest.param(deployment(), False, id="deployment"),
        pytest.param(deployment(1), False, id="deployment-of-one-surges"),
        pytest.param(deployment(0), False, id="deployment-of-none"),
        pytest.param(deployment(strategy={"type": "Recreate"}), True, id="recreate"),
        pytest.param(deployment(paused=True), True, id="paused"),
        pytest.param(deployment(1, **rolling_update(maxUnavailable=1, maxSurge=0)), True, id="the-only-pod-may-go"),
        pytest.param(deployment(2, **rolling_update(maxUnavailable="100%", maxSurge=0)), True, id="all-may-go"),
        pytest.param(deployment(2, **rolling_update(maxUnavailable="50%", maxSurge=0)), False, id="half-may-go"),
        pytest.param(deployment(1, **rolling_update(maxUnavailable="25%", maxSurge="0%")), True, id="both-round-to-nothing"),
        pytest.param(stateful_set(), False, id="stateful-set"),
        pytest.param(stateful_set(1), True, id="stateful-set-of-one"),
        pytest.param(stateful_set(type="OnDelete"), True, id="stateful-set-on-delete"),
        pytest.param(stateful_set(rollingUpdate={"partition": 1}), True, id="stateful-set-partition"),
        pytest.param(daemon_set(), False, id="daemon-set"),
        pytest.param(daemon_set(1), True, id="daemon-set-of-one"),
        pytest.param(daemon_set(1, rollingUpdate={"maxSurge": 1}), False, id="daemon-set-that-surges"),
    ],
)
def test_rolling_interrupts(workload: Workload, interrupts: bool) -> None:
    assert (interruption(workload) is not None) is interrupts


def test_the_digest_of_a_template_leaves_our_annotation_out() -> None:
    assert template_digest(deployment(annotations={ROLLOUT_ANNOTATION: "x"})) == template_digest(deployment())
    assert template_digest(deployment(annotations={"a": "b"})) != template_digest(deployment())


def test_a_deployment_rolls_while_old_pods_are_left() -> None:
    assert is_rolling(deployment(rolling=True))
    assert not is_rolling(deployment())


MEANS = Means(
    trigger="Auto",
    may_roll=True,
    version="v2",
    injection="current",
    started_at=STARTED,
    now=NOW,
    webhook_reached=True,
    image_fails=False,
)


@dataclass(slots=True)
class Pods:
    """Of one owner: `old` are outdated by version, `missing` not injected, `fine` as they should be."""

    old: int = 0
    missing: int = 0
    fine: int = 0
    unready: int = 0
    """Of the fine ones."""
    made: list[Audited] = field(default_factory=list)

    def all(self) -> list[Audited]:
        old = [Audited(pod(f"old-{index}"), Standing.OUTDATED) for index in range(self.old)]
        missing = [Audited(pod(f"missing-{index}", injection=None), Standing.MISSING) for index in range(self.missing)]
        fine = [Audited(pod(f"fine-{index}", version="v2", ready=index >= self.unready), Standing.INJECTED) for index in range(self.fine)]
        return old + missing + fine + self.made


def ward(pods: Pods, workload: Workload | None = None, evicting: bool = False, owner: str = "Deployment vllm") -> Ward:
    return Ward(pods.all(), owner, workload or deployment(), evicting)


def reason(outcome: object) -> str:
    assert isinstance(outcome, Wait | Leave), outcome
    return f"{type(outcome).__name__} {outcome.reason}"


def test_nothing_is_done_where_all_is_well() -> None:
    assert repair(ward(Pods(fine=2)), MEANS) is None


def test_the_template_is_rolled() -> None:
    outcome = repair(ward(Pods(old=2)), MEANS)
    assert outcome == Roll(deployment(), trigger_value(deployment(), "v2", "current"))


@pytest.mark.parametrize(
    ("one", "means", "expected"),
    [
        pytest.param(ward(Pods(old=2), owner=""), MEANS, "Leave NoController", id="no-controller"),
        pytest.param(ward(Pods(old=2)), replace(MEANS, trigger="Manual"), "Leave Manual", id="manual"),
        pytest.param(Ward(Pods(old=2).all(), "Job x", None), MEANS, "Leave UnknownWorkload", id="unknown-kind"),
        pytest.param(
            ward(Pods(old=2), deployment(annotations={VERSION_ANNOTATION: "v1"})), MEANS, "Leave TemplateNamesAnotherVersion", id="pinned"
        ),
        pytest.param(ward(Pods(old=2)), replace(MEANS, may_roll=False), "Wait NotYet", id="not-yet"),
        pytest.param(ward(Pods(missing=2)), replace(MEANS, image_fails=True), "Wait ImagePullFailed", id="image"),
        pytest.param(ward(Pods(old=2), deployment(rolling=True)), MEANS, "Wait RolloutInProgress", id="rolling-already"),
        pytest.param(ward(Pods(old=2)), replace(MEANS, started_at=NOW - 59), "Wait WaitingForTemplate", id="within-a-minute"),
        pytest.param(ward(Pods(missing=2)), replace(MEANS, webhook_reached=False), "Wait WebhookNotReached", id="webhook"),
        pytest.param(ward(Pods(old=2), deployment(strategy={"type": "Recreate"})), MEANS, "Leave WouldInterrupt", id="would-interrupt"),
        pytest.param(
            ward(Pods(old=2), deployment(annotations={ROLLOUT_ANNOTATION: trigger_value(deployment(), "v2", "current")})),
            MEANS,
            "Leave RolledAlready",
            id="once-per-template",
        ),
        pytest.param(ward(Pods(old=1), deployment(1), evicting=True), MEANS, "Leave WouldInterrupt", id="evict-single"),
        pytest.param(ward(Pods(old=1, fine=1, unready=1), evicting=True), MEANS, "Wait WaitingForSuccessor", id="evict-unready"),
        pytest.param(ward(Pods(old=2), deployment(3), evicting=True), MEANS, "Wait WaitingForSuccessor", id="evict-one-short"),
    ],
)
def test_pods_are_left_or_waited_for(one: Ward, means: Means, expected: str) -> None:
    assert reason(repair(one, means)) == expected


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        pytest.param(deployment(strategy={"type": "Recreate"}), "`kubectl rollout restart deployment/vllm -n llm`", id="recreate"),
        pytest.param(deployment(paused=True), "`kubectl rollout resume deployment/vllm -n llm`", id="paused"),
        pytest.param(stateful_set(1), "`kubectl rollout restart statefulset/vllm -n llm`", id="none-to-spare"),
        pytest.param(stateful_set(type="OnDelete"), "delete its pods one by one", id="on-delete"),
        pytest.param(
            stateful_set(rollingUpdate={"partition": 2}),
            "take the partition away, then `kubectl rollout restart statefulset/vllm -n llm`",
            id="partition",
        ),
    ],
)
def test_what_would_interrupt_is_told_with_what_to_do(workload: Workload, expected: str) -> None:
    outcome = repair(ward(Pods(old=2), workload), MEANS)
    assert isinstance(outcome, Leave)
    assert outcome.reason == "WouldInterrupt"
    assert outcome.message.endswith(f"; when it suits you: {expected}")


def test_a_rollout_that_makes_outdated_pods_which_never_become_ready_is_superseded() -> None:
    # As where the sidecar's resources fit on no node, and the user has corrected them.
    pending = Audited(pod("pending", ready=False), Standing.OUTDATED)
    assert isinstance(repair(ward(Pods(fine=1, made=[pending]), deployment(rolling=True)), MEANS), Roll)


def test_missing_pods_do_not_wait_for_the_owner_of_the_template() -> None:
    assert isinstance(repair(ward(Pods(missing=2)), replace(MEANS, started_at=NOW)), Roll)


def test_another_version_or_injection_rolls_the_same_template_again() -> None:
    rolled = deployment(annotations={ROLLOUT_ANNOTATION: trigger_value(deployment(), "v2", "current")})
    assert isinstance(repair(ward(Pods(old=2), rolled), replace(MEANS, version="v3")), Roll)
    assert isinstance(repair(ward(Pods(old=2), rolled), replace(MEANS, injection="newer")), Roll)


ROLLED = deployment(annotations={ROLLOUT_ANNOTATION: trigger_value(deployment(), "v2", "current")})


@pytest.mark.parametrize(
    ("one", "first"),
    [
        pytest.param(ward(Pods(old=2)), "Roll", id="roll"),
        pytest.param(ward(Pods(old=2), evicting=True), "Evict", id="evict"),
        pytest.param(ward(Pods(old=2), ROLLED), "Leave", id="rolled-already"),
        pytest.param(ward(Pods(old=2), deployment(strategy={"type": "Recreate"})), "Leave", id="would-interrupt"),
    ],
)
def test_of_pods_that_were_replaced_before_the_workload_was_looked_at_nothing_is_said_or_done(one: Ward, first: str) -> None:
    assert type(repair(one, MEANS)).__name__ == first
    assert reason(confirmed(one, MEANS, {})) == "Wait RolloutInProgress"
    ending = {each.pod.uid: pod(each.pod.name, deletionTimestamp="2027-01-01T00:00:00Z") for each in one.pods}
    assert reason(confirmed(one, MEANS, ending)) == "Wait RolloutInProgress"
    assert confirmed(one, MEANS, {each.pod.uid: each.pod for each in one.pods}) == repair(one, MEANS)


def test_no_pod_is_evicted_when_another_has_gone_since_they_were_listed() -> None:
    one = ward(Pods(old=2), evicting=True)
    left = {each.pod.uid: each.pod for each in one.pods[1:]}
    assert reason(confirmed(one, MEANS, left)) == "Wait WaitingForSuccessor"


def test_a_rollout_is_not_superseded_for_a_stuck_pod_that_has_gone() -> None:
    stuck = Audited(pod("pending", ready=False), Standing.OUTDATED)
    one = ward(Pods(old=1, made=[stuck]), deployment(rolling=True))
    assert isinstance(repair(one, MEANS), Roll)
    assert reason(confirmed(one, MEANS, {"old-0": pod("old-0")})) == "Wait RolloutInProgress"


def test_eviction_takes_one_pod_when_all_are_ready() -> None:
    outcome = repair(ward(Pods(old=2), evicting=True), MEANS)
    assert isinstance(outcome, Evict)
    assert outcome.pod.name == "old-0"


def test_eviction_takes_what_serves_nobody_first() -> None:
    unready = Audited(pod("unready", ready=False), Standing.OUTDATED)
    outcome = repair(ward(Pods(old=1, made=[unready]), evicting=True), MEANS)
    assert isinstance(outcome, Evict)
    assert outcome.pod.name == "unready"


def test_eviction_waits_while_a_pod_is_ending() -> None:
    ending = Audited(pod("ending", deletionTimestamp="2027-01-01T00:00:00Z"), Standing.OUTDATED)
    assert reason(repair(ward(Pods(old=1, fine=1, made=[ending]), evicting=True), MEANS)) == "Wait WaitingForSuccessor"


def test_eviction_stops_when_a_pod_came_back_unchanged() -> None:
    young = Audited(pod("young", injection=None, created="2030-01-01T00:00:00Z"), Standing.MISSING)
    assert reason(repair(ward(Pods(missing=1, made=[young]), evicting=True), MEANS)) == "Leave RolledAlready"


def with_sidecar(state: dict[str, Any], image: str = IMAGE, created: str = CREATED) -> Pod:
    body = dict(pod(created=created).body)
    spec = {"containers": [{"image": "vllm"}], "initContainers": [{"name": "inference-cache", "image": image}]}
    return read_pod({**body, "spec": spec, "status": {"initContainerStatuses": [{"name": "inference-cache", "state": state}]}})


PULLING = {"waiting": {"reason": "ImagePullBackOff"}}
RUNNING: dict[str, Any] = {"running": {}}
RECENTLY = "2027-01-15T07:55:00Z"


@pytest.mark.parametrize(
    ("pods", "failing"),
    [
        pytest.param([], False, id="no-pods"),
        pytest.param([with_sidecar(PULLING)], True, id="cannot-be-pulled"),
        pytest.param([with_sidecar(PULLING), with_sidecar(RUNNING, created=RECENTLY)], False, id="a-later-one-runs-it"),
        pytest.param([with_sidecar(PULLING, created=RECENTLY), with_sidecar(RUNNING)], True, id="an-earlier-one-has-it-still"),
        pytest.param([with_sidecar(PULLING), with_sidecar(RUNNING, "other")], True, id="one-runs-another"),
        pytest.param([with_sidecar({"waiting": {"reason": "PodInitializing"}})], False, id="not-yet"),
        pytest.param([with_sidecar(PULLING, "other")], False, id="another-image-fails"),
    ],
)
def test_an_image_fails(pods: list[Pod], failing: bool) -> None:
    assert (pull_failure(pods, IMAGE, NOW) is not None) is failing


def test_a_trial_is_due_ten_minutes_after_the_last_pod_that_tried() -> None:
    tried = pull_failure([with_sidecar(PULLING), with_sidecar(PULLING, created=RECENTLY)], IMAGE, NOW)
    assert tried is not None
    assert not tried.trial_due
    later = pull_failure([with_sidecar(PULLING, created=RECENTLY)], IMAGE, NOW + 600)
    assert later is not None
    assert later.trial_due


def test_the_webhook_withholds_the_image_that_the_condition_names() -> None:
    status = {"conditions": [{"type": "Stalled", "status": "True", "reason": images.REASON, "message": f"`{IMAGE}` cannot be pulled"}]}
    assert images.is_withheld(status, IMAGE)
    assert not images.is_withheld(status, "other")
    assert not images.is_withheld({}, IMAGE)
