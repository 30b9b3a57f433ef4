"""The version state machine under any order of bumps, rollbacks, pods coming and going, silence and restarts."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.operator.version_scenes import PlayedPod, Scene, resource

VERSIONS = st.sampled_from(["v1", "v2", "v3"])


class Versions(RuleBasedStateMachine):
    @initialize(flush=st.sampled_from(["AfterRollout", "Immediate"]), retain=st.sampled_from(["0s", "300s"]), redis=st.booleans())
    def begin(self, flush: str, retain: str, redis: bool) -> None:
        self.scene = Scene(resource("v1", flush, retain, redis=redis))
        self.number = 0
        self.decision = self.scene.look()

    @rule(version=VERSIONS)
    def spec_names(self, version: str) -> None:
        self.scene.spec(version=version, request=self.scene.resource.flush_requested)
        self.look()

    @rule(value=st.sampled_from(["a", "b"]))
    def flush_is_requested(self, value: str) -> None:
        self.scene.now += 1
        self.scene.spec(request=value)
        self.look()

    @rule(version=VERSIONS, ready=st.booleans(), answers=st.booleans())
    def pod_starts(self, version: str, ready: bool, answers: bool) -> None:
        self.number += 1
        self.scene.pods[f"p{self.number}"] = PlayedPod(version, ready=ready, answers=answers)
        self.look()

    @precondition(lambda self: self.scene.pods)
    @rule(data=st.data(), what=st.sampled_from(["ready", "answers", "ending", "draining", "overdue", "gone"]))
    def pod_changes(self, data: st.DataObject, what: str) -> None:
        uid = data.draw(st.sampled_from(sorted(self.scene.pods)))
        pod = self.scene.pods[uid]
        if what == "gone":
            del self.scene.pods[uid]
        elif what in ("ending", "draining", "overdue"):
            setattr(pod, what, True)
        else:
            setattr(pod, what, not getattr(pod, what))
        self.look()

    @precondition(lambda self: self.scene.pods)
    @rule(data=st.data(), finished=st.booleans())
    def sidecar_obeys(self, data: st.DataObject, finished: bool) -> None:
        pod = self.scene.pods[data.draw(st.sampled_from(sorted(self.scene.pods)))]
        pod.done |= {order.id: 1 if finished else None for order in self.decision.orders}
        self.look()

    @rule(seconds=st.sampled_from([1.0, 100.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.scene.now += seconds
        self.look()

    def look(self) -> None:
        known = {each.id for each in self.scene.state.flushes}
        self.decision = self.scene.look()
        for order in self.decision.orders:
            assert order.id in {each.id for each in self.scene.state.flushes}, "an order that nobody would remember"
            assert order.target == "all" or order.id in known | {each.id for each in self.scene.state.flushes}

    @invariant()
    def never_flushes_what_is_served_or_wanted(self) -> None:
        scene = self.scene
        serving = {pod.version for pod in scene.pods.values() if not pod.silenced}
        for order in self.decision.orders:
            if order.target != "version":
                continue
            assert order.value != scene.resource.version
            assert order.id.startswith("immediate-") or order.value not in serving | {scene.state.active}

    @invariant()
    def asked_again_it_says_the_same(self) -> None:
        before = self.scene.state
        again = self.scene.look()
        assert (again.state, again.orders, again.said) == (before, self.decision.orders, ())

    @invariant()
    def everything_that_was_served_besides_is_remembered(self) -> None:
        kept = {each.value for each in self.scene.state.flushes if each.awaits_pods}
        other = {pod.version for pod in self.scene.pods.values()} - {self.scene.resource.version}
        assert other <= kept

    def teardown(self) -> None:
        """Left alone, with pods of the wanted version, it comes to rest."""
        if not hasattr(self, "scene"):
            return
        self.scene.replace_pods(self.scene.resource.version)
        self.scene.settle()
        self.scene.now += 10_000
        self.scene.settle()
        state = self.scene.state
        assert (state.phase, state.active, state.updating, state.flushes) == ("Stable", self.scene.resource.version, None, ())


Versions.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestVersions = Versions.TestCase
