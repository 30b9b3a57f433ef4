"""The hot configuration: what reaches a running sidecar by its pod's annotation, and back by `/status` as acknowledgement.

The webhook writes the first one, the controller every later one, the sidecar reads it from a downward-API file. JSON, canonical:
equal configurations are equal texts, so that nothing is patched when nothing changed.
"""

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from inference_cache_contract.errors import SpecErrors, SpecProblem

TARGETS: Final = ("all", "version")
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[([0-9]+)\]")


@dataclass(frozen=True, slots=True)
class FlushOrder:
    """To be executed once, by one of the cache's sidecars where they share a store, by each where they do not."""

    id: str
    """Unlike any other order's of this cache; what was executed once under an id is not executed again."""
    target: str
    """`all` or `version`."""
    value: str = ""
    """The version; empty for all."""


@dataclass(frozen=True, slots=True)
class Configuration:
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The resource's spec, as submitted. Its model.version is that of the resource; a sidecar's own comes by its container's variables."""
    flushes: tuple[FlushOrder, ...] = ()

    def text(self) -> str:
        """For the annotation."""
        flushes = [{"id": order.id, "target": order.target, "value": order.value} for order in self.flushes]
        return json.dumps({"flushes": flushes, "spec": self.spec}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(text: str) -> str:
    """Names one configuration in acknowledgements: 16 hexadecimal digits over the annotation's text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_configuration(text: str) -> Configuration:
    """Checks the form, not the spec's content: that is `parse_spec`'s. Raises SpecErrors."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SpecErrors([SpecProblem("configuration", "is not JSON")]) from error
    if not isinstance(document, dict) or not isinstance(document.get("spec"), dict) or not isinstance(document.get("flushes"), list):
        raise SpecErrors([SpecProblem("configuration", "must be an object with `spec` and `flushes`")])
    return Configuration(document["spec"], tuple(_order(raw, index) for index, raw in enumerate(document["flushes"])))


def known_part(configuration: Configuration, problems: Iterable[SpecProblem]) -> tuple[Configuration, tuple[str, ...]]:
    """`configuration` less its fields that `problems` call unknown, and their paths: the resource may be newer than its reader. Raises
    nothing; what is not there is not taken out."""
    spec = copy.deepcopy(dict(configuration.spec))
    paths = tuple(problem.path for problem in problems if problem.unknown and _taken_out(spec, problem.path))
    return Configuration(spec, configuration.flushes), paths


def _taken_out(spec: Any, path: str) -> bool:
    """Whether it was there."""
    *above, (name, _) = _STEP.findall(path)
    place = spec
    try:
        for member, index in above:
            place = place[member] if member else place[int(index)]
        del place[name]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _order(raw: object, index: int) -> FlushOrder:
    if not isinstance(raw, dict) or not all(isinstance(raw.get(name), str) for name in ("id", "target", "value")):
        raise SpecErrors([SpecProblem(f"configuration.flushes[{index}]", "must have `id`, `target` and `value`")])
    if raw["target"] not in TARGETS:
        raise SpecErrors([SpecProblem(f"configuration.flushes[{index}].target", f"must be one of {', '.join(TARGETS)}")])
    return FlushOrder(raw["id"], raw["target"], raw["value"])
