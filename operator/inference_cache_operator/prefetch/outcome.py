"""What a round finds about the files of a new version, and how the status tells it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_operator.prefetch.nodes import ORDER, OnNode
from inference_cache_operator.versions.telling import Said

MOST_SHOWN: Final = 20
"""Nodes in a status: it is read as a whole by everybody who watches."""
Figures = Mapping[str, int]
"""Members of a node's progress, by name."""


@dataclass(frozen=True, slots=True)
class Found:
    """Which way files take in a namespace."""

    delivery: str = ""
    """`HostPath`, `Agent`, `Claim` or `Pod`; empty: not known yet."""
    message: str = ""
    """Why not a better one."""


@dataclass(frozen=True, slots=True)
class Prefetched:
    preloaded: bool = True
    """Nothing is in the way of pods of the wanted version."""
    nodes: Sequence[OnNode] = ()
    found: Found = Found()
    figures: Mapping[str, Figures] | None = None
    """By node."""
    problem: OnNode | None = None
    """That holds everything up; `node` is empty where it is of no node."""
    said: tuple[Said, ...] = ()

    @property
    def ready(self) -> int:
        return sum(each.state == "Ready" for each in self.nodes)


def shown(nodes: Sequence[OnNode]) -> list[OnNode]:
    """Those that the status tells of."""
    return sorted(nodes, key=lambda each: (ORDER.index(each.state), each.node))[:MOST_SHOWN]


def first_failure(nodes: Sequence[OnNode]) -> OnNode | None:
    return next((each for each in sorted(nodes, key=lambda each: each.node) if each.state == "Failed"), None)


def artifacts_status(prefetched: Prefetched) -> dict[str, Any] | None:
    """`status.artifacts`; None: there is nothing to tell."""
    found, nodes = prefetched.found, prefetched.nodes
    if not found.delivery and not nodes:
        return None
    figures = prefetched.figures or {}
    return {
        **({"delivery": found.delivery} if found.delivery else {}),
        **({"message": found.message} if found.message else {}),
        **({"nodes": {"wanted": len(nodes), "ready": prefetched.ready}} if nodes else {}),
        **({"progress": [_entry(each, figures.get(each.node, {})) for each in shown(nodes)]} if nodes else {}),
    }


def preloading_text(version: str, prefetched: Prefetched) -> str:
    """For the condition, while nothing is wrong."""
    behind = _first_behind(prefetched.nodes)
    if behind is None:
        return f"version {version!r} is not there yet"
    if prefetched.found.delivery == "Claim":
        return f"version {version!r} is not on the claim yet; {_standing(behind)}"
    counted = f"{prefetched.ready} of {len(prefetched.nodes)} nodes"
    return f"version {version!r} is on {counted}; node {behind.node}: {_standing(behind)}"


def _first_behind(nodes: Sequence[OnNode]) -> OnNode | None:
    """One of which it is known what holds it up, if there is one."""
    behind = [each for each in nodes if each.state != "Ready"]
    return min(behind, key=lambda each: (not each.message, ORDER.index(each.state), each.node), default=None)


def _standing(one: OnNode) -> str:
    where_told = "log" if one.state == "Fetching" else "events"
    why = one.message or (f"pod {one.pod}: see its {where_told}" if one.pod else "")
    return f"{one.state}, {why}" if why else one.state


def problem_text(version: str, problem: OnNode) -> str:
    place = f"node {problem.node}: " if problem.node else ""
    return f"version {version!r}: {place}{problem.message}; pods of the version before go on"


def _entry(one: OnNode, figures: Figures) -> dict[str, Any]:
    told = {"reason": one.reason, "message": one.message}
    return {"node": one.node, "state": one.state, **figures, **{name: text for name, text in told.items() if text}}
