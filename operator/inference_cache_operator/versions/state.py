"""What the controller remembers of a cache: all of it stands in the resource's status, so that a restart loses nothing. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from inference_cache_contract.configuration import FlushOrder
from inference_cache_operator.versions.times import seconds_of, text_of

Phase = Literal["Stable", "Preloading", "Updating", "Draining", "Flushing"]
PHASES: Final[tuple[Phase, ...]] = ("Stable", "Preloading", "Updating", "Draining", "Flushing")
IMMEDIATE: Final = "immediate-"
"""Starts the id of an order that does not wait for the version's last pod."""
KEPT_FLUSHED: Final = 10


@dataclass(frozen=True, slots=True)
class Flush:
    """Of all, or of a version that the spec no longer names."""

    id: str
    target: str
    """`all` or `version`."""
    value: str
    time: float | None
    """Of all: when it was asked for. Of a version: since when no pod has served it; None while one does. Seconds since 1970."""

    @property
    def awaits_pods(self) -> bool:
        return self.target == "version" and not self.id.startswith(IMMEDIATE)

    @property
    def immediate(self) -> bool:
        return self.id.startswith(IMMEDIATE)

    def order(self) -> FlushOrder:
        return FlushOrder(self.id, self.target, self.value)


@dataclass(frozen=True, slots=True)
class Flushed:
    version: str
    """Empty: all of them."""
    keys: int
    time: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """The present replacing of pods, or the last one."""

    started_at: float | None = None
    drained_at: float | None = None
    """When the last pod that had to go was gone."""


@dataclass(frozen=True, slots=True)
class State:
    phase: Phase = "Stable"
    active: str | None = None
    """None before the controller has seen the resource."""
    updating: str | None = None
    flushes: tuple[Flush, ...] = ()
    flushed: tuple[Flushed, ...] = ()
    last_request: str | None = None
    rollout: Rollout = Rollout()
    artifacts: tuple[Mapping[str, Any], ...] = ()
    """Of the active version, as its spec said."""


def read_state(status: Mapping[str, Any]) -> State:
    """Takes a status that somebody mangled for what can be read of it."""
    phase = status.get("phase")
    rollout = _mapping(status.get("rollout"))
    return State(
        phase=phase if phase in PHASES else "Stable",
        active=_text(status.get("activeVersion")),
        updating=_text(status.get("updatingVersion")),
        flushes=tuple(
            Flush(str(raw.get("id")), str(raw.get("target")), str(raw.get("value") or ""), seconds_of(raw.get("time")))
            for raw in _mappings(status.get("flushes"))
        ),
        flushed=tuple(
            Flushed(str(raw.get("version") or ""), int(raw.get("keys") or 0), seconds_of(raw.get("time")) or 0.0)
            for raw in _mappings(status.get("flushedVersions"))
        ),
        last_request=_text(status.get("lastFlushRequest")),
        rollout=Rollout(seconds_of(rollout.get("startedAt")), seconds_of(rollout.get("drainedAt"))),
        artifacts=tuple(_mappings(status.get("activeArtifacts"))),
    )


def write_state(state: State) -> dict[str, Any]:
    """The members of the status that `read_state` reads."""
    return _without_none(
        {
            "phase": state.phase,
            "activeVersion": state.active,
            "activeArtifacts": [dict(each) for each in state.artifacts] or None,
            "updatingVersion": state.updating,
            "flushes": [
                _without_none({"id": each.id, "target": each.target, "value": each.value, "time": _time(each.time)})
                for each in state.flushes
            ],
            "flushedVersions": [{"version": each.version, "keys": each.keys, "time": text_of(each.time)} for each in state.flushed],
            "lastFlushRequest": state.last_request,
            "rollout": _without_none(
                {
                    "startedAt": _time(state.rollout.started_at),
                    "drainedAt": _time(state.rollout.drained_at),
                }
            ),
        }
    )


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else text_of(seconds)


def _without_none(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if value is not None}


def _text(raw: object) -> str | None:
    return None if raw is None else str(raw)


def _mapping(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def _mappings(raw: object) -> list[Mapping[str, Any]]:
    return [each for each in raw if isinstance(each, Mapping)] if isinstance(raw, list) else []
