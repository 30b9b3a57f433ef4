"""Which port clients know, where vLLM listens, and a free port to move it to. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from inference_cache_contract.endpoints import ADMIN_PORT, FEATURES_PORT, SERVING_PORT
from inference_cache_contract.pod import PORT_ANNOTATION
from inference_cache_operator.injection import arguments
from inference_cache_operator.injection.finding import Found, annotations_of, containers_of
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.injection.words import Word

_DISTANCE: Final = 10000
_HIGHEST: Final = 32767
"""Below the ports that the kernel, and so vLLM for its own parts, picks from."""
_START: Final = 18000
_MESH_PORTS: Final = frozenset({4140, 4143, 4190, 4191, *range(15000, 15100)})
"""Of linkerd and Istio, whose containers may come after ours."""
_NUMBER: Final = re.compile(r"(?<![0-9.])[0-9]{2,5}(?![0-9])")
_IPV4: Final = frozenset({"0.0.0.0", ""})  # noqa: S104  what vLLM is told
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost"})
_ASK: Final = f"say it in the annotation {PORT_ANNOTATION}"


@dataclass(frozen=True, slots=True)
class Addresses:
    port: int
    """Which clients, Services and probes know: vLLM's until now, the sidecar's from now on."""
    moved: int
    """vLLM's from now on."""
    listen_host: str
    """As vLLM listened; IPv6 in brackets."""
    upstream_host: str
    any_host: str
    """All of the pod's addresses, of the family that vLLM serves."""

    @property
    def reachable(self) -> bool:
        """From outside the pod."""
        return self.listen_host == self.any_host


def addresses(pod: Mapping[str, Any], found: Found, features: bool) -> Addresses:
    """Raises Refusal. `features`: the sidecar listens on FEATURES_PORT too."""
    port = _served_port(found.command.arguments, annotations_of(pod).get(PORT_ANNOTATION))
    _check_clashes(pod, found.name, port, features)
    listen, upstream, everywhere = _hosts(found.command.arguments)
    return Addresses(port, _free_port(pod, port), listen, upstream, everywhere)


def _served_port(words: Sequence[Word], annotation: str | None) -> int:
    said = arguments.last_value(words, "--port")
    declared = None if annotation is None else _port(annotation, f"annotation {PORT_ANNOTATION}")
    if said is not None and said.known:
        port = _port(said.text, "vLLM's --port")
        if declared is not None and declared != port:
            raise Refusal("PortContradiction", f"annotation {PORT_ANNOTATION} says {declared}, vLLM's --port says {port}: drop one of them")
        return port
    if declared is not None:
        return declared
    if said is not None:
        raise Refusal("PortUnknown", f"vLLM's --port {said.text} is known only once the pod runs: {_ASK}")
    if arguments.last_value(words, "--config") is not None:
        raise Refusal("PortUnknown", f"vLLM reads its arguments from a --config file, perhaps its port too: {_ASK}")
    unknown = next(arguments.unknown_words(words), None)
    if unknown is not None:
        raise Refusal("PortUnknown", f"vLLM's argument {unknown.text} is known only once the pod runs, and may be its port: {_ASK}")
    return SERVING_PORT


def _port(text: str, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise Refusal("PortUnknown", f"{what} is {text!r}, not a port number: write one")
    return int(text)


def _check_clashes(pod: Mapping[str, Any], vllm: str, port: int, features: bool) -> None:
    ours = {ADMIN_PORT: "the sidecar's admin port"} | ({FEATURES_PORT: "the feature cache's port"} if features else {})
    if port in ours:
        raise Refusal("PortTaken", f"vLLM serves on {port}, which is {ours[port]}: give vLLM another --port")
    for container in containers_of(pod, "containers", "initContainers"):
        for declared in container.get("ports") or ():
            number, protocol = declared.get("containerPort"), declared.get("protocol") or "TCP"
            if protocol == "TCP" and (number in ours or (number == port and container.get("name") != vllm)):
                raise Refusal(
                    "PortTaken",
                    f"container {container.get('name')!r} declares port {number}, which is {ours.get(number, 'the one vLLM serves on')}: "
                    "give it another one",
                )


def _hosts(words: Sequence[Word]) -> tuple[str, str, str]:
    """Where vLLM listened, where it is found inside the pod, all addresses of its family. `::` takes IPv4 too, as vLLM does by it."""
    said = arguments.last_value(words, "--host")
    host = "" if said is None else said.text.strip("[]")
    if host in _IPV4:
        return "0.0.0.0", "127.0.0.1", "0.0.0.0"  # noqa: S104  where vLLM listened
    if host in _LOOPBACK:
        return "127.0.0.1", "127.0.0.1", "0.0.0.0"  # noqa: S104  for the admin port
    if host in ("::", "::1"):
        return f"[{host}]", "[::1]", "[::]"
    raise Refusal("HostUnsupported", f"vLLM listens on --host {host} alone: leave --host out, or use 0.0.0.0 (with IPv6, ::)")


def _free_port(pod: Mapping[str, Any], port: int) -> int:
    """The same for the same pod; free as far as its text tells."""
    used = set(_numbers(pod)) | _MESH_PORTS | {port, ADMIN_PORT, FEATURES_PORT}
    first = port + _DISTANCE if port + _DISTANCE <= _HIGHEST else _START
    for candidate in chain(range(first, _HIGHEST + 1), range(_START, first)):
        if candidate not in used:
            return candidate
    raise Refusal("PortTaken", "the pod names every port that vLLM could be moved to")


def _numbers(pod: Mapping[str, Any]) -> Iterator[int]:
    """Whatever in the pod's containers may be a port."""
    for container in containers_of(pod, "containers", "initContainers"):
        for declared in container.get("ports") or ():
            yield from (declared.get(field) or 0 for field in ("containerPort", "hostPort"))
        values = [variable.get("value") or "" for variable in container.get("env") or ()]
        for text in (*(container.get("command") or ()), *(container.get("args") or ()), *values):
            yield from map(int, _NUMBER.findall(text))
        yield from _probed(container)


def _probed(container: Mapping[str, Any]) -> Iterator[int]:
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        for action in (container.get(kind) or {}).values():
            if isinstance(action, Mapping) and isinstance(action.get("port"), int):
                yield action["port"]
