"""What the sidecar's container asks for and may use. Pure.

What Kubernetes would refuse is refused here: a pod that cannot be created serves nobody.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from inference_cache_contract import quantity
from inference_cache_operator.injection.refusal import Refusal

OVERHEAD_BYTES: Final = 400 * 2**20
"""Of the processes, the embedder and its model, beside what `store.memory.maxBytes` allows."""
MODEST_CPU: Final = "100m"
"""What the sidecar uses of a core at some hundred requests a second; it may use more where there is more."""
_FETCHING_MEMORY: Final = "512Mi"
_FETCHING_REQUESTS: Final[Mapping[str, str]] = {"cpu": "100m", "memory": "128Mi"}
_FETCHING_GUARANTEED: Final[Mapping[str, str]] = {"cpu": "1", "memory": _FETCHING_MEMORY}
_NAMES: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_QUANTITY: Final = re.compile(r"(?P<number>[0-9]{1,18}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?P<unit>[numk]|[KMGTPE]i?|[eE][+-]?[0-9]{1,2})?")
_DECIMAL: Final = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_PATH: Final = "spec.sidecar.resources"


def resources(defaults: Mapping[str, str], given: object, max_bytes: object) -> dict[str, dict[str, str]]:
    """Limits are requests, so that a Guaranteed pod stays so, unless the resource asks for less than it limits. Raises Refusal.

    `given` is the resource's, in Kubernetes' form; `max_bytes` what its store may hold, which the default of memory makes room for.
    """
    asked, limited = _part(given, "requests"), _part(given, "limits")
    limits = {**defaults, "memory": _memory(defaults.get("memory", "1Gi"), max_bytes)}
    limits |= {name: amount for name, amount in asked.items() if name not in limits or _amount(name, amount) > _amount(name, limits[name])}
    limits |= limited
    requests = {**limits, **asked}
    for name, limit in limits.items():
        if _amount(name, requests[name]) > _amount(name, limit):
            raise Refusal("SidecarResources", f"{_PATH}.requests.{name}: {requests[name]} is more than the limit, {limit}")
    return {"requests": requests, "limits": limits}


def modest(wanted: Mapping[str, Mapping[str, str]], given: object) -> dict[str, dict[str, str]]:
    """For a pod that is not Guaranteed anyway: little CPU asked for and none capped, unless the resource speaks of CPU.

    A whole core more would not find room on a node whose cores are given out.
    """
    parts = {name: dict(amounts) for name, amounts in wanted.items()}
    if "cpu" not in _part(given, "requests") and "cpu" not in _part(given, "limits"):
        parts["limits"].pop("cpu", None)
        parts["requests"]["cpu"] = MODEST_CPU
    return parts


def of_fetching(*, guaranteed: bool) -> dict[str, dict[str, str]]:
    """Of an init container, which costs a pod nothing that its containers ask for anyway."""
    if guaranteed:
        return {"requests": dict(_FETCHING_GUARANTEED), "limits": dict(_FETCHING_GUARANTEED)}
    return {"requests": dict(_FETCHING_REQUESTS), "limits": {"memory": _FETCHING_MEMORY}}


def resources_are_the_pods(spec: Mapping[str, Any]) -> bool:
    """Resources are given to the pod as a whole; what a container asked for besides would have to fit in."""
    return bool(spec.get("resources"))


def is_guaranteed(spec: Mapping[str, Any]) -> bool:
    """Whether a pod's quality of service is Guaranteed: every container limits CPU and memory, and asks for just as much."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return all(_asks_for_its_limits(each.get("resources") or {}) for each in containers)


def _asks_for_its_limits(resources: Mapping[str, Any]) -> bool:
    limits, requests = _part(resources, "limits"), _part(resources, "requests")
    return all(name in limits and _equal(name, requests.get(name, limits[name]), limits[name]) for name in ("cpu", "memory"))


def _equal(name: str, one: str, other: str) -> bool:
    try:
        return _amount(name, one) == _amount(name, other)
    except Refusal:
        return one == other


def _part(given: object, name: str) -> dict[str, str]:
    part: Any = given.get(name) if isinstance(given, Mapping) else None
    return {each: str(amount) for each, amount in part.items()} if isinstance(part, Mapping) else {}


def _memory(default: str, max_bytes: object) -> str:
    """The default, or more where the store asks for it."""
    try:
        needed = quantity.parse_bytes(max_bytes or 0) + OVERHEAD_BYTES
        return default if needed <= _amount("memory", default) else str(quantity.format_bytes(needed))
    except ValueError:
        return default


def _amount(name: str, text: str) -> Decimal:
    match = _QUANTITY.fullmatch(text)
    if match is None or name not in _NAMES:
        known = ", ".join(sorted(_NAMES))
        raise Refusal("SidecarResources", f"{_PATH}: {name}: {text} is not an amount of {known}, such as 500m or 1Gi")
    number, unit = Decimal(match["number"]), match["unit"] or ""
    if unit in _BINARY:
        return number * Decimal(1024) ** _BINARY[unit]
    return number.scaleb(_DECIMAL[unit]) if unit in _DECIMAL else number.scaleb(int(unit[1:]))
