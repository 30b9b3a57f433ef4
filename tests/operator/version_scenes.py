"""A cache, its pods and time, as the version tests play them: `Scene` keeps the state between steps as the status would."""

from dataclasses import dataclass, field
from typing import Any

from inference_cache_contract.configuration import FlushOrder
from inference_cache_contract.pod import FLUSH_ANNOTATION
from inference_cache_contract.sidecar_status import FlushReport, SidecarStatus
from inference_cache_operator.resource import Resource
from inference_cache_operator.versions.state import State, read_state, write_state
from inference_cache_operator.versions.step import Decision, Facts, Member, step

NOW = 1_800_000_000.0


def resource(
    version: str = "v1", flush: str = "AfterRollout", retain: str = "0s", request: str | None = None, redis: bool = True, source: str = ""
) -> Resource:
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {"app": "vllm"}},
        "model": {"version": version, "artifacts": [{"source": source, "mountPath": "/models"}] if source else []},
        "rollout": {"flush": flush, "retain": retain},
        "store": {"redis": {"urlSecretRef": {"name": "r"}}} if redis else {},
    }
    annotations = {} if request is None else {FLUSH_ANNOTATION: request}
    return Resource("llm", "faq", "uid", "2026-01-01T00:00:00Z", 1, spec, annotations=annotations)


def answer(done: dict[str, int | None], draining: bool = False) -> SidecarStatus:
    """`done`: keys by order id; None where it still runs."""
    reports = tuple(
        FlushReport(order, "running" if keys is None else "done", acknowledged=True, keys=keys, epoch=1) for order, keys in done.items()
    )
    return SidecarStatus("d", (), draining, "v", "Enabled", reports, True, ())


@dataclass(slots=True)
class PlayedPod:
    version: str
    ready: bool = True
    ending: bool = False
    draining: bool = False
    overdue: bool = False
    """It should have ended some time ago."""
    answers: bool = True
    running: bool = False
    done: dict[str, int | None] = field(default_factory=dict)

    def member(self, uid: str) -> Member:
        status = answer(self.done, self.draining) if self.answers else None
        return Member(uid, self.version, self.ready, self.ending, self.running, self.silenced, status)

    @property
    def silenced(self) -> bool:
        return self.ending and self.overdue and (self.draining or not self.answers)


@dataclass(slots=True)
class Scene:
    resource: Resource = field(default_factory=resource)
    pods: dict[str, PlayedPod] = field(default_factory=dict)
    now: float = NOW
    preloaded: bool = True
    outdated: int = 0
    """Pods of the wanted version that are to be replaced all the same."""
    state: State = field(default_factory=State)
    given: list[FlushOrder] = field(default_factory=list)
    """Every order that was ever in force."""
    said: list[str] = field(default_factory=list)

    def spec(self, **changes: Any) -> None:
        rollout = self.resource.rollout
        kept = {"version": self.resource.version, "flush": rollout.flush, "retain": f"{rollout.retain_seconds:g}s", **changes}
        self.resource = resource(**kept)

    def look(self) -> Decision:
        """One step, through the status as a restarted controller would read it."""
        unwell = sum(not pod.ending and pod.version != self.resource.version for pod in self.pods.values()) + self.outdated
        facts = Facts(self.resource, [pod.member(uid) for uid, pod in self.pods.items()], unwell, self.preloaded, self.now)
        decision = step(read_state(write_state(self.state)), facts)
        self.state = decision.state
        self.given += [order for order in decision.orders if order not in self.given]
        self.said += [each.reason for each in decision.said]
        return decision

    def carry_out(self, decision: Decision, keys: int | None = 7) -> None:
        """Every sidecar does what it was ordered."""
        for pod in self.pods.values():
            pod.done |= {order.id: keys for order in decision.orders}

    def settle(self, rounds: int = 20) -> Decision:
        """Looks until nothing moves; sidecars do as they are told."""
        decision = self.look()
        for _ in range(rounds):
            self.carry_out(decision)
            before, decision = self.state, self.look()
            if self.state == before:
                break
        return decision

    def replace_pods(self, version: str) -> None:
        self.pods = {f"{version}-{index}": PlayedPod(version) for index in range(len(self.pods) or 1)}


def with_pods(version: str, count: int = 2, **changes: Any) -> Scene:
    scene = Scene(resource(version, **changes), {f"{version}-{index}": PlayedPod(version) for index in range(count)})
    scene.settle()
    return scene
