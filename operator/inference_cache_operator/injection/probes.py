"""vLLM's probes: they go on asking vLLM itself, at the port it is moved to. Pure; edits a copy that the caller made."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.injection.words import environment

PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_REFERENCE: Final = re.compile(r"\$[({]?([A-Za-z_][A-Za-z0-9_]*)")
_ACTIONS: Final = ("httpGet", "tcpSocket", "grpc")


def check(container: Mapping[str, Any], port: int) -> None:
    """Raises Refusal where a command that probes names the port: it would ask the sidecar, whose death must not restart vLLM."""
    variables = environment(container)
    for kind in PROBES:
        words = (((container.get(kind) or {}).get("exec") or {}).get("command")) or ()
        if any(_names(text, port, variables) for text in words):
            raise Refusal("ExecProbe", f"the {kind} of container {container['name']!r} runs a command that names port {port}: use httpGet")


def repoint(container: dict[str, Any], port: int, moved: int) -> dict[str, int | str]:
    """From `port`, or a name of it, to `moved`; returns what stood there, by probe."""
    names = _names_of(container, port)
    before: dict[str, int | str] = {}
    for kind, action in _actions(container):
        if action.get("port") == port or action.get("port") in names:
            before[kind] = action["port"]
            action["port"] = moved
    return before


def restore(container: dict[str, Any], before: Mapping[str, int | str], moved: int) -> None:
    """Undoes `repoint`; a probe that somebody changed since stays as it is."""
    for kind, action in _actions(container):
        if kind in before and action.get("port") == moved:
            action["port"] = before[kind]


def _actions(container: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in PROBES:
        for name in _ACTIONS:
            action = (container.get(kind) or {}).get(name)
            if action:
                yield kind, action


def _names_of(container: Mapping[str, Any], port: int) -> set[str]:
    return {each["name"] for each in container.get("ports") or () if each.get("containerPort") == port and each.get("name")}


def _names(text: str, port: int, variables: Mapping[str, str | None]) -> bool:
    if re.search(rf"(?<![0-9]){port}(?![0-9])", text):
        return True
    return any(variables.get(name) == str(port) for name in _REFERENCE.findall(text))
