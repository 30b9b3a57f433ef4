"""One condition of a resource's status, and its time. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from inference_cache_operator.versions.times import text_of

_LONGEST_MESSAGE: Final = 2000
"""Characters; Kubernetes takes 32768, and a refusal may quote all of a pod's arguments."""


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


def present(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions of a status that was read, by type."""
    return {str(each.get("type")): each for each in status.get("conditions") or () if isinstance(each, Mapping)}


def dated(conditions: Iterable[Condition], status: Mapping[str, Any], generation: int, now: float) -> list[dict[str, Any]]:
    """As they are written over `status`: the time of one changes only with its `status`."""
    known = present(status)
    return [_with_time(each, known.get(each.type) or {}, generation, now) for each in conditions]


def _with_time(condition: Condition, before: Mapping[str, Any], generation: int, now: float) -> dict[str, Any]:
    unchanged = before.get("status") == condition.status and before.get("lastTransitionTime")
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message[:_LONGEST_MESSAGE],
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if unchanged else text_of(now),
    }
