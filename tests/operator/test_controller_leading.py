"""What the leader does first, and how often it looks, and what it leaves behind in the end: with clusters of dictionaries."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.test_audit import Injection, deployment, pod, resource
from tests.operator.version_scenes import answer

from inference_cache_operator.audit.repair import Evict, Leave, Repair, Roll, Wait
from inference_cache_operator.audit.standing import Audited, Standing
from inference_cache_operator.cluster import paths
from inference_cache_operator.controller.collaborators import Collaborators, Pace
from inference_cache_operator.controller.configuring import configure
from inference_cache_operator.controller.index import Index
from inference_cache_operator.controller.pacing import Stillness, first_pause, pause
from inference_cache_operator.controller.probing import WebhookProbe
from inference_cache_operator.controller.reconciling import Reconciler
from inference_cache_operator.controller.releasing import release_orphans
from inference_cache_operator.controller.repairing import Repairer
from inference_cache_operator.controller.running import Controller
from inference_cache_operator.errors import BadObject, ClusterError, ClusterUnreachable, Conflicting, NotAllowed
from inference_cache_operator.prefetch.pods import PREFETCH_LABEL
from inference_cache_operator.versions.state import State
from inference_cache_operator.versions.step import Decision, Member
from inference_cache_operator.webhook.deciding import PROBED_ANNOTATION

BODY: dict[str, Any] = {
    "metadata": {"namespace": "llm", "name": "faq", "uid": "u", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"selector": {"matchLabels": {"app": "vllm"}}},
}
PACE = Pace(acknowledging=0.01, changing=0.01, resync=3600, orphans=3600)


class HangingCluster:
    """Lists one resource, after `refusals` errors; whoever gets it waits for ever."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.asked: list[str] = []
        self.gets: asyncio.Queue[str] = asyncio.Queue()

    async def list(self, path: str, labels: str = "", **_: Any) -> list[dict[str, Any]]:
        self.asked.append("list")
        if path != paths.caches(None):
            return []
        if self.refusals:
            self.refusals -= 1
            raise ClusterUnreachable("GET")
        return [BODY]

    async def get(self, path: str) -> dict[str, Any]:
        self.gets.put_nowait(path)
        return await asyncio.get_running_loop().create_future()


def controller(cluster: Any) -> Controller:
    return Controller(Collaborators(cluster=cluster, sidecars=None, injector=None, index=Index(), pace=PACE))  # type: ignore[arg-type]


class ProbedCluster:
    def __init__(self, answer: str | None) -> None:
        self.answer = answer

    async def create(self, path: str, body: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        annotations = body["metadata"]["annotations"] | ({} if self.answer is None else {PROBED_ANNOTATION: self.answer})
        return {**body, "metadata": {**body["metadata"], "annotations": annotations}}


@pytest.mark.parametrize(
    ("answer", "reached"),
    [
        pytest.param(None, False, id="no-webhook"),
        pytest.param("a=now", True, id="one"),
        pytest.param("a=now,b=now", True, id="two"),
        pytest.param("a=now,b=before", False, id="one-of-another-version"),
        pytest.param("a", False, id="one-that-does-not-say"),
    ],
)
async def test_pods_are_rolled_only_where_all_webhooks_inject_what_the_controller_expects(answer: str | None, reached: bool) -> None:
    assert await WebhookProbe(ProbedCluster(answer), "operators", "now").reached() is reached  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("repairs", "behind", "seconds"),
    [
        pytest.param([], [], None, id="nothing-to-do"),
        pytest.param([Leave("NoController", "m")], [], None, id="somebody-else-must-act"),
        pytest.param([Leave("Manual", "m"), Wait("NotYet", "m")], [], PACE.changing, id="under-way"),
        pytest.param([], [Member("a", "v1")], PACE.acknowledging, id="silent"),
        pytest.param([], [Member("a", "v1", status=replace(answer({}), refused=("no",)))], None, id="refused"),
    ],
)
def test_what_only_somebody_else_can_change_waits_for_the_resync(repairs: list[Repair], behind: list[Member], seconds: float) -> None:
    decision = Decision(State(active="v1"), (), may_roll=True, waiting_for_sidecar=False, said=())
    assert first_pause(PACE, decision, repairs, behind) == seconds


def test_where_there_is_no_pod_yet_it_is_looked_for_again_soon() -> None:
    decision = Decision(State(active="v1"), (), may_roll=True, waiting_for_sidecar=False, said=())
    assert first_pause(PACE, decision, [], [], podless=True) == PACE.changing


def test_where_nothing_moves_a_resource_is_looked_at_less_and_less_often() -> None:
    assert [pause(0.3, still, 10.0) for still in (0, 9.9, 10, 50, 1000)] == [0.3, 0.3, 1.0, 5.0, 10.0]
    assert pause(1.0, 10.0, 0.5) == 1.0


def test_it_counts_from_the_last_move_of_this_very_resource() -> None:
    still, key = Stillness(), ("llm", "faq")
    assert [still.seconds(key, "u", moved, now) for moved, now in ((True, 5), (False, 9), (True, 20), (False, 21))] == [0, 4, 0, 1]
    assert still.seconds(key, "another", moved=False, now=30) == 0
    still.forget(key)
    assert still.seconds(key, "another", moved=False, now=40) == 0


class RefusingCluster:
    """Takes no change of the pod `a`."""

    def __init__(self, error: type[ClusterError]) -> None:
        self.error = error

    async def merge(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == paths.pod("llm", "a"):
            raise self.error("PATCH")
        return body


@pytest.mark.parametrize("error", [BadObject, NotAllowed])
async def test_a_pod_that_a_policy_lets_nobody_change_holds_up_no_other(error: type[ClusterError]) -> None:
    asked = [pod(name) for name in ("a", "b")]
    left, configured = await configure(RefusingCluster(error), asked, "{}")  # type: ignore[arg-type]
    assert (left.configuration, configured.configuration) == (None, "{}")


async def test_an_api_server_that_is_away_is_told_of() -> None:
    with pytest.raises(ClusterUnreachable):
        await configure(RefusingCluster(ClusterUnreachable), [pod("a")], "{}")  # type: ignore[arg-type]


class PodlessCluster:
    """One resource without pods; keeps its status."""

    def __init__(self) -> None:
        self.body = dict(BODY)

    async def get(self, _path: str) -> dict[str, Any]:
        return self.body

    async def list(self, _path: str, _labels: str = "", **_: Any) -> list[dict[str, Any]]:
        return []

    async def apply(self, _path: str, body: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        self.body = {**self.body, "status": body["status"]}
        return self.body

    def ready(self) -> tuple[str, str]:
        (found,) = [each for each in self.body["status"]["conditions"] if each["type"] == "Ready"]
        return found["status"], found["reason"]


class NoSidecars:
    async def statuses(self, _pods: Any) -> dict[str, Any]:
        return {}


async def test_a_resource_that_was_just_made_is_not_ready_before_its_pods_had_time_to_come() -> None:
    cluster, clock = PodlessCluster(), [1_800_000_000.0]
    made_of: Any = {"cluster": cluster, "sidecars": NoSidecars(), "injector": Injection()}
    reconciler = Reconciler(Collaborators(**made_of, index=Index(), pace=PACE, now=lambda: clock[0]))
    told = []
    for _ in range(6):
        assert await reconciler.reconcile(("llm", "faq")) == PACE.changing
        told.append(cluster.ready())
        clock[0] += 1
    assert told == [("False", "FirstLook")] * 4 + [("True", "NoPods")] * 2


class PrefetchingCluster(PodlessCluster):
    """The resource's selector selects a pod that only fetches."""

    async def list(self, _path: str, _labels: str = "", **_: Any) -> list[dict[str, Any]]:
        one = pod("faq-prefetch-1", injection=None)
        return [{**one.body, "metadata": {**one.body["metadata"], "labels": {**one.labels, "app": "vllm", PREFETCH_LABEL: "uid"}}}]


async def test_a_pod_that_only_fetches_is_nobodys_whatever_a_selector_says() -> None:
    cluster = PrefetchingCluster()
    made_of: Any = {"cluster": cluster, "sidecars": NoSidecars(), "injector": Injection()}
    await Reconciler(Collaborators(**made_of, index=Index(), pace=PACE)).reconcile(("llm", "faq"))
    assert cluster.body["status"]["pods"]["selected"] == 0


OWNER = {"kind": "Deployment", "name": "vllm", "uid": "w", "controller": True, "apiVersion": "apps/v1"}
MISSING = [Audited(pod(name, injection=None, ownerReferences=[OWNER]), Standing.MISSING) for name in ("a", "b")]
DECISION = Decision(State(active="v1"), (), may_roll=True, waiting_for_sidecar=False, said=())


def repairing(cluster: Any) -> Repairer:
    return Repairer(Collaborators(cluster=cluster, sidecars=None, injector=Injection(), index=Index(), webhook_reached=_yes))  # type: ignore[arg-type]


class ConflictingCluster:
    def __init__(self, said: str, standing: tuple[str, ...] = ("a", "b")) -> None:
        self.said, self.standing = said, standing

    async def apply(self, path: str, *_: Any) -> dict[str, Any]:
        raise Conflicting(f"PATCH {path}", self.said)

    async def get(self, path: str) -> dict[str, Any]:
        return dict(deployment().body)

    async def list(self, path: str, labels: str = "", **_: Any) -> list[dict[str, Any]]:
        return [dict(pod(name).body) for name in self.standing]


@pytest.mark.parametrize(
    ("said", "evicting"),
    [
        pytest.param('Apply failed with 1 conflict: conflict with "x" using apps/v1: .spec', True, id="owned-by-another"),
        pytest.param("Precondition failed: UID in precondition: a, UID in object meta: b", False, id="made-anew"),
        pytest.param("Operation cannot be fulfilled on deployments.apps: the object has been modified", False, id="changed-meanwhile"),
    ],
)
async def test_only_where_another_owns_the_annotations_do_pods_go_one_by_one(said: str, evicting: bool) -> None:
    repairer = repairing(ConflictingCluster(said))
    await repairer.carry_out(resource(), await repairer.plan(resource(), MISSING, DECISION))
    (planned,) = await repairer.plan(resource(), MISSING, DECISION)
    assert isinstance(planned, Evict if evicting else Roll)


async def test_pods_that_their_owner_has_replaced_since_they_were_listed_roll_nothing() -> None:
    (planned,) = await repairing(ConflictingCluster("", standing=("c", "d"))).plan(resource(), MISSING, DECISION)
    assert isinstance(planned, Wait)


async def _yes() -> bool:
    return True


class LabelledCluster:
    def __init__(self) -> None:
        self.labels: list[str] = []

    async def list(self, path: str, labels: str = "", **_: Any) -> list[dict[str, Any]]:
        self.labels.append(labels)
        return []


async def test_only_injected_pods_are_listed_in_the_search_for_orphans() -> None:
    cluster = LabelledCluster()
    await release_orphans(cluster, [None, "llm"], [])  # type: ignore[arg-type]
    assert cluster.labels == ["inferencecache.io/injected=true"] * 2


async def end(leading: "asyncio.Task[None]") -> None:
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading


async def test_what_was_worked_on_when_the_lease_was_lost_is_taken_up_when_it_leads_again() -> None:
    cluster = HangingCluster()
    leader = controller(cluster)
    for _ in range(2):
        leading = asyncio.ensure_future(leader.lead())
        assert await asyncio.wait_for(cluster.gets.get(), 10) == paths.cache("llm", "faq")
        await end(leading)


async def test_nothing_is_worked_on_before_all_resources_are_known() -> None:
    cluster = HangingCluster(refusals=3)
    leader, begun = controller(cluster), asyncio.Event()
    leader.heard(BODY, deleted=False)

    async def beside() -> None:
        assert cluster.refusals == 0
        begun.set()

    leading = asyncio.ensure_future(leader.lead(beside))
    await asyncio.wait_for(cluster.gets.get(), 10)
    await asyncio.wait_for(begun.wait(), 10)
    assert cluster.asked[:4] == ["list"] * 4
    assert cluster.refusals == 0
    await end(leading)
