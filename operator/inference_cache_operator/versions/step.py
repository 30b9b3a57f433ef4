"""The one decision about versions: from what is remembered and what lives, the next state, the orders in force, and whether pods may roll.

Level-triggered: asked again with the same facts it says the same. The caller writes the state first and acts after, so that an order is
never given under an id that is not remembered.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inference_cache_contract.configuration import FlushOrder
from inference_cache_contract.sidecar_status import SidecarStatus
from inference_cache_operator.resource import Resource
from inference_cache_operator.versions import flushing
from inference_cache_operator.versions.state import IMMEDIATE, Flush, Phase, Rollout, State
from inference_cache_operator.versions.telling import Said


@dataclass(frozen=True, slots=True)
class Member:
    """An injected pod of the cache that is not known to have ended."""

    uid: str
    version: str
    ready: bool = True
    ending: bool = False
    running: bool = False
    """Kubelet says that its sidecar runs."""
    silenced: bool = False
    """It should long be gone, and serves nothing from the cache any more for all we know."""
    status: SidecarStatus | None = None
    """None: it did not answer."""

    @property
    def live(self) -> bool:
        """Gets orders. One that is neither Ready nor answers, but runs, is only slow: it comes back with all that it holds."""
        return not self.ending and self._is_up

    @property
    def must_report(self) -> bool:
        """May serve from the cache, so that no order is done without it. One that ends without draining never hears of a new order."""
        if self.ending:
            return not self.silenced and self._is_up and (self.status is None or not self.status.draining)
        return self._is_up

    @property
    def _is_up(self) -> bool:
        return self.ready or self.running or self.status is not None


@dataclass(frozen=True, slots=True)
class Facts:
    resource: Resource
    members: Sequence[Member]
    unwell: int
    """Selected pods that are to be replaced: not injected though they could be, or injected otherwise than now."""
    preloaded: bool
    """The wanted version's artifacts are there, or there are none."""
    now: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Decision:
    state: State
    orders: tuple[FlushOrder, ...]
    """That every live pod's configuration carries."""
    may_roll: bool
    """Outdated pods may be replaced now."""
    waiting_for_sidecar: bool
    """Something is to be flushed and no sidecar lives that could."""
    said: tuple[Said, ...]


def step(state: State, facts: Facts) -> Decision:
    wanted, said = facts.resource.version, list[Said]()
    state = _first_sight(state, wanted)
    state = _change_noticed(state, facts, said)
    state = _request_noticed(state, facts)
    state = _retire(state, facts)
    state = _switched(state, facts, said)
    orders = flushing.due(state, facts)
    state, orders = flushing.settle(state, orders, facts, said)
    state = replace(state, phase=_phase(state, facts, bool(orders)))
    state = replace(state, updating=wanted if state.phase in ("Preloading", "Updating", "Draining") else None)
    state = replace(state, rollout=_rollout(state, facts), artifacts=_artifacts(state, facts))
    blocked = any(each.immediate and not flushing.acknowledged(each, facts.members) for each in orders)
    return Decision(
        state=state,
        orders=tuple(each.order() for each in orders),
        may_roll=facts.preloaded and not blocked,
        waiting_for_sidecar=bool(orders) and not any(member.live for member in facts.members),
        said=tuple(said),
    )


def _first_sight(state: State, wanted: str) -> State:
    return replace(state, active=wanted) if state.active is None else state


def _change_noticed(state: State, facts: Facts, said: list[Said]) -> State:
    """A bump, a bump of a bump, or a rollback: whatever the spec names now that it did not when we last looked."""
    wanted, before = facts.resource.version, state.updating if state.updating is not None else state.active
    assert before is not None
    if wanted == before:
        return state
    said.append(Said("VersionChangeStarted", f"from {before!r} to {wanted!r}"))
    at_once = _left_at_once(state, facts, before) if facts.resource.rollout.flush == "Immediate" else []
    flushes = [each for each in state.flushes if not (each.immediate and each.value in at_once)]
    flushes += [Flush(_new_id(f"{IMMEDIATE}{each}", state, facts), "version", each, facts.now) for each in at_once]
    return replace(state, flushes=tuple(flushes), rollout=Rollout(started_at=facts.now), updating=wanted)


def _left_at_once(state: State, facts: Facts, before: str) -> list[str]:
    """What was wanted until now, and whatever else pods serve: a version that a bump named may have reached none of them."""
    left = {before, state.active or before} | {member.version for member in facts.members if not member.silenced}
    return sorted(left - {facts.resource.version})


def _request_noticed(state: State, facts: Facts) -> State:
    request = facts.resource.flush_requested
    if request is None or request == state.last_request:
        return state
    name = hashlib.sha256(request.encode()).hexdigest()[:8]
    flush = Flush(_new_id(f"all-{name}", state, facts), "all", "", facts.now)
    return replace(state, flushes=(*state.flushes, flush), last_request=request)


def _new_id(name: str, state: State, facts: Facts) -> str:
    """Unlike any that a sidecar may have executed: it would report the new order as done, and leave what was stored since."""
    taken = {report.id for member in facts.members if member.status is not None for report in member.status.flushes}
    taken |= {each.id for each in state.flushes}
    milliseconds = int(facts.now * 1000)
    return next(found for more in itertools.count() if (found := f"{name}-{milliseconds + more}") not in taken)


def _retire(state: State, facts: Facts) -> State:
    """Keeps in mind every version that is, was or comes to life besides the wanted one, and since when nobody serves it."""
    wanted = facts.resource.version
    living = {member.version for member in facts.members if not member.silenced}
    known = {each.value for each in state.flushes if each.awaits_pods}
    seen = {member.version for member in facts.members} | ({state.active} if state.active is not None else set())
    new = [Flush(_new_id(f"version-{each}", state, facts), "version", each, None) for each in sorted(seen - known - {wanted})]
    kept = [each for each in (*state.flushes, *new) if not (each.target == "version" and each.value == wanted)]
    return replace(state, flushes=tuple(_dated(each, living, facts.now) if each.awaits_pods else each for each in kept))


def _dated(flush: Flush, living: set[str], now: float) -> Flush:
    if flush.value in living:
        return replace(flush, time=None)
    return replace(flush, time=now) if flush.time is None else flush


def _switched(state: State, facts: Facts, said: list[Said]) -> State:
    """The wanted version becomes the active one when no pod of another serves any more."""
    wanted = facts.resource.version
    if state.active == wanted or not facts.preloaded or _others(facts):
        return state
    said.append(Said("VersionChanged", f"{wanted!r} is served instead of {state.active!r}"))
    return replace(state, active=wanted)


def _others(facts: Facts) -> list[Member]:
    return [each for each in facts.members if each.version != facts.resource.version and not each.silenced]


def _phase(state: State, facts: Facts, flushing_now: bool) -> Phase:
    others = _others(facts)
    if state.active != facts.resource.version and not facts.preloaded:
        return "Preloading"
    if any(not each.ending for each in others):
        return "Updating"
    if others:
        return "Draining"
    return "Flushing" if flushing_now else "Stable"


def _artifacts(state: State, facts: Facts) -> tuple[Mapping[str, Any], ...]:
    """The active version's: kept from when the spec named it last."""
    return tuple(facts.resource.artifacts) if state.active == facts.resource.version else state.artifacts


def _rollout(state: State, facts: Facts) -> Rollout:
    rollout, busy = state.rollout, bool(facts.unwell or _others(facts))
    if busy and (rollout.started_at is None or rollout.drained_at is not None):
        return Rollout(started_at=facts.now)
    if not busy and rollout.started_at is not None and rollout.drained_at is None:
        return replace(rollout, drained_at=facts.now)
    return rollout
