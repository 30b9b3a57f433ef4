"""How soon a resource is looked at again: where nothing moves for long, less and less often."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from inference_cache_operator.audit.repair import Leave, Repair
from inference_cache_operator.controller.collaborators import Pace
from inference_cache_operator.controller.index import Key
from inference_cache_operator.versions.step import Decision, Member

_PATIENT_SECONDS: Final = 10.0
_SHARE: Final = 0.1
"""Of the time that nothing has moved for."""


@dataclass(frozen=True, slots=True)
class _Still:
    uid: str
    since: float


class Stillness:
    """Since when nothing has moved, by resource."""

    def __init__(self) -> None:
        self._still: dict[Key, _Still] = {}

    def seconds(self, key: Key, uid: str, moved: bool, now: float) -> float:
        """To be told at every look whether the status was another than before."""
        before = self._still.get(key)
        if moved or before is None or before.uid != uid:
            self._still[key] = before = _Still(uid, now)
        return now - before.since

    def forget(self, key: Key) -> None:
        self._still.pop(key, None)


def first_pause(pace: Pace, decision: Decision, repairs: Iterable[Repair], behind: Iterable[Member], podless: bool = False) -> float | None:
    """Seconds between looks while things move; None: only the next resync has to come.

    `behind`: members in which the configuration is not in force. `podless`: no pod is selected, and nobody tells when one comes. What only
    somebody else can change is not waited for: a sidecar that has refused the configuration, pods that are left as they are.
    """
    if any(each.status is None or not each.status.refused for each in behind):
        return pace.acknowledging
    replacing = any(not isinstance(each, Leave) for each in repairs)
    busy = replacing or (decision.state.phase != "Stable" and not decision.waiting_for_sidecar)
    return pace.changing if busy or podless else None


def pause(base: float, still_seconds: float, longest: float) -> float:
    """`base` at first, then a tenth of the time that nothing has moved for, and `longest` at most; all in seconds."""
    return base if still_seconds < _PATIENT_SECONDS else max(base, min(longest, still_seconds * _SHARE))
