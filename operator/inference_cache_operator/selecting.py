"""Which resource a pod belongs to. Pure; the webhook and the controller ask."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_operator.resource import Resource

_OPERATORS: Final[Mapping[str, Callable[[str | None, Sequence[str]], bool]]] = {
    "In": lambda value, values: value is not None and value in values,
    "NotIn": lambda value, values: value is None or value not in values,
    "Exists": lambda value, values: value is not None,
    "DoesNotExist": lambda value, values: value is None,
}


@dataclass(frozen=True, slots=True)
class Selected:
    """By `winner`; `losers` select the same pod and are younger."""

    winner: Resource
    losers: tuple[Resource, ...] = ()


def select(namespace: str, labels: Mapping[str, str], resources: Iterable[Resource]) -> Selected | None:
    """The oldest of those that select a pod wins, by name where they are of one age; one that is being deleted selects nothing."""
    found = [each for each in resources if each.namespace == namespace and not each.deleting and selector_matches(each.selector, labels)]
    if not found:
        return None
    winner, *losers = sorted(found, key=lambda each: (each.created, each.name))
    return Selected(winner, tuple(losers))


def selector_matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """As Kubernetes does, but that an empty selector selects nothing: it would mean every pod of the namespace."""
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    expressions: Sequence[Mapping[str, Any]] = selector.get("matchExpressions") or ()
    if not wanted and not expressions:
        return False
    return all(labels.get(key) == value for key, value in wanted.items()) and all(_holds(each, labels) for each in expressions)


def selector_text(selector: Mapping[str, Any]) -> str:
    """For `labelSelector` of a list call."""
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for each in selector.get("matchExpressions") or ():
        values = ",".join(each.get("values") or ())
        match each["operator"]:
            case "In" | "NotIn":
                parts.append(f"{each['key']} {each['operator'].lower()} ({values})")
            case "Exists":
                parts.append(each["key"])
            case _:
                parts.append(f"!{each['key']}")
    return ",".join(parts)


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    holds = _OPERATORS.get(expression.get("operator", ""))
    return holds is not None and holds(labels.get(expression.get("key", "")), expression.get("values") or ())
