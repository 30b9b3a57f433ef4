"""What a supervisor is started with: one JSON text on its command line. `launching` writes it; it holds no secrets."""

import json
from dataclasses import asdict, dataclass
from typing import Final

CONTROL_GROUPS: Final = "/sys/fs/cgroup"
DRAIN_SECONDS: Final = 30.0
"""What a worker takes for requests in flight after SIGTERM, at most."""


@dataclass(frozen=True, slots=True)
class Front:
    """Sockets that listen at one address, and where their connections go while no worker takes them."""

    name: str
    descriptors: tuple[int, ...]
    upstream: tuple[str, int] | None
    """None: connections wait for a worker."""


@dataclass(frozen=True, slots=True)
class Plan:
    fronts: tuple[Front, ...]
    arguments: tuple[str, ...]
    """Of the worker, after `sidecar`."""
    log_level: str = "info"
    control_groups: str = CONTROL_GROUPS
    """Where the container's memory is read."""

    def descriptors(self, name: str) -> tuple[int, ...]:
        return next((front.descriptors for front in self.fronts if front.name == name), ())


def plan_text(plan: Plan) -> str:
    return json.dumps(asdict(plan))


def parse_plan(text: str) -> Plan:
    told = json.loads(text)
    fronts = tuple(Front(front["name"], tuple(front["descriptors"]), _address(front["upstream"])) for front in told["fronts"])
    return Plan(fronts, tuple(told["arguments"]), told["log_level"], told["control_groups"])


def _address(told: list[object] | None) -> tuple[str, int] | None:
    return None if told is None else (str(told[0]), int(str(told[1])))
