"""Which flushes are due, and which are done. Pure; `step` asks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from inference_cache_contract.sidecar_status import FlushReport
from inference_cache_operator.versions.state import KEPT_FLUSHED, Flush, Flushed, State
from inference_cache_operator.versions.telling import Said

if TYPE_CHECKING:
    from inference_cache_operator.versions.step import Facts, Member


def due(state: State, facts: "Facts") -> tuple[Flush, ...]:
    """A version's: when nobody serves it, it is neither the active nor the wanted one, and `retain` is over."""
    return tuple(each for each in state.flushes if _is_due(each, state, facts))


def due_at(flush: Flush, state: State, facts: "Facts") -> float | None:
    """When a version's flush will be; None while a pod may still serve it."""
    if flush.time is None or flush.value in (state.active, facts.resource.version):
        return None
    return flush.time + facts.resource.rollout.retain_seconds


def settle(state: State, orders: Sequence[Flush], facts: "Facts", said: list[Said]) -> tuple[State, tuple[Flush, ...]]:
    """Takes what every sidecar that may serve has done off the list, and counts it."""
    done = [each for each in orders if _done(each, facts.members)]
    flushed = [Flushed(each.value, _keys(each, facts), facts.now) for each in done]
    said.extend(Said("Flushed", f"{each.version or 'all versions'}: {each.keys} entries") for each in flushed)
    return (
        replace(
            state,
            flushes=tuple(each for each in state.flushes if each not in done),
            flushed=(*state.flushed, *flushed)[-KEPT_FLUSHED:],
        ),
        tuple(each for each in orders if each not in done),
    )


def acknowledged(flush: Flush, members: Sequence["Member"]) -> bool:
    """By every sidecar that may serve: none of them serves what was stored before. True where none lives."""
    return all((report := _report(flush, each)) is not None and report.acknowledged for each in members if each.must_report)


def _is_due(flush: Flush, state: State, facts: "Facts") -> bool:
    if not flush.awaits_pods:
        return True
    at = due_at(flush, state, facts)
    return at is not None and at <= facts.now


def _done(flush: Flush, members: Sequence["Member"]) -> bool:
    asked = [each for each in members if each.must_report]
    return bool(asked) and all((report := _report(flush, each)) is not None and report.state == "done" for each in asked)


def _report(flush: Flush, member: "Member") -> FlushReport | None:
    if member.status is None:
        return None
    return next((each for each in member.status.flushes if each.id == flush.id), None)


def _keys(flush: Flush, facts: "Facts") -> int:
    """Of a shared store every sidecar tells the same count, of stores of their own each its own."""
    counts = [report.keys or 0 for each in facts.members if each.must_report and (report := _report(flush, each)) is not None]
    shared = bool((facts.resource.spec.get("store") or {}).get("redis"))
    return max(counts, default=0) if shared else sum(counts)
