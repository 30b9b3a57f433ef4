"""What a supervised sidecar needs to answer requests at all: where clients come in, and where they are passed on to. Pure.

It stands apart from all else that can be set: a secret or a spec that is refused costs the cache, never the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference_cache_contract.errors import SpecErrors, SpecProblem
from inference_cache_sidecar import settings as process
from inference_cache_sidecar.flags import parse_flags
from inference_cache_sidecar.layers import Layers
from inference_cache_sidecar.settings import Address, ProcessSetting, Settings
from inference_cache_sidecar.supervisor.inheritance import INHERITED_VARIABLE

DEFAULT_LEVEL = "info"


@dataclass(frozen=True, slots=True)
class Entrance:
    listen: Address
    upstream: str
    """Scheme, host and port."""
    admin: Address
    features: Address | None = None
    """None: there will be no feature cache, whatever the hot configuration says."""
    features_now: bool = False
    """It is asked for from the start."""
    log_level: str = DEFAULT_LEVEL


def entrance_of(settings: Settings, layers: Layers) -> Entrance:
    now = settings.spec.features.upstream is not None or process.FEATURES.flag in layers.flags
    may_come = now or settings.configuration is not None
    features = settings.features if may_come else None
    return Entrance(settings.listen, settings.upstream, settings.admin, features, now, settings.log_level)


def entrance_in_need(argv: Sequence[str], environment: Mapping[str, str]) -> Entrance | None:
    """Where the settings as a whole are refused. None where this is no supervisor, or the entrance itself is refused."""
    try:
        flags, print_only = parse_flags(argv)
        layers = Layers(flags, environment, {})
        supervise = process.parse_switch(_text(layers, process.SUPERVISE))
        if print_only or not supervise or environment.get(INHERITED_VARIABLE):
            return None
        listen = process.parse_address(_text(layers, process.LISTEN))
        admin = process.parse_address(_text(layers, process.ADMIN))
        upstream = process.parse_upstream(_text(layers, process.UPSTREAM))
    except (SpecErrors, ValueError):
        return None
    if clashes(listen, admin, upstream):
        return None
    return Entrance(listen, upstream, admin, _features(layers), process.FEATURES.flag in layers.flags, _log_level(layers))


def clashes(listen: Address, admin: Address, upstream: str) -> list[SpecProblem]:
    """Two names of one address are not looked for: only what is plainly a slip of the pen."""
    if listen.port and listen == admin:
        return [SpecProblem(process.ADMIN.flag, f"{admin} is also where clients connect (--listen)")]
    if upstream == f"http://{listen}":
        return [SpecProblem(process.UPSTREAM.flag, f"{upstream} is the sidecar itself (--listen)")]
    return []


def _text(layers: Layers, setting: ProcessSetting) -> str:
    return layers.process_value(setting) or ""


def _features(layers: Layers) -> Address | None:
    try:
        return process.parse_address(_text(layers, process.FEATURES))
    except ValueError:
        return None


def _log_level(layers: Layers) -> str:
    try:
        return process.parse_log_level(_text(layers, process.LOG_LEVEL))
    except ValueError:
        return DEFAULT_LEVEL
