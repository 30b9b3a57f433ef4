"""Puts one configuration together: a flag beats a variable, a variable beats the hot configuration, that beats the file, the file
beats the default. Pure.

`command` brings the layers; the outcome is what `parse_spec` reads, and where each value came from, for messages.
"""

import copy
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from inference_cache_contract.configuration import Configuration
from inference_cache_contract.endpoints import (
    ENCRYPTION_KEYS_VARIABLE,
    KAFKA_PASSWORD_VARIABLE,
    KAFKA_USERNAME_VARIABLE,
    REDIS_URL_VARIABLE,
    TENANCY_KEY_VARIABLE,
)
from inference_cache_contract.errors import SpecErrors, SpecProblem
from inference_cache_contract.quantity import parse_duration
from inference_cache_contract.spec import Spec, parse_spec
from inference_cache_contract.spec_table import SETTINGS, VARIABLE_PREFIX, Setting
from inference_cache_sidecar.settings import DRAIN_SECONDS, ENCRYPTION_KEY_FIELD, PROCESS_SETTINGS, ProcessSetting, Wanted

UNUSED = ("semantic.calibration",)
"""Fields of the resource that a reader would expect to change what this sidecar does, and that it does not use."""

SECRETS = {
    "store.redis.urlSecretRef": REDIS_URL_VARIABLE,
    "store.redis.encryptionKeySecretRef": ENCRYPTION_KEYS_VARIABLE,
    "tenancy.keySecretRef": TENANCY_KEY_VARIABLE,
    "invalidation.kafka.usernameSecretRef": KAFKA_USERNAME_VARIABLE,
    "invalidation.kafka.passwordSecretRef": KAFKA_PASSWORD_VARIABLE,
}
"""Fields that name a secret, whose content comes by a variable."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The three places a value can be set in; an empty variable is not set."""

    flags: Mapping[str, str | bool]
    """By flag, as given; booleans come as such."""
    variables: Mapping[str, str]
    file: Mapping[str, Any]

    def beneath(self, configuration: Configuration) -> "Layers":
        """With the hot configuration between the variables and the file. The model's version is never the configuration's: that tells
        which one is to be served, not which one the model server beside this process serves."""
        told = {name: value for name, value in configuration.spec.items() if name != "model"}
        model = configuration.spec.get("model")
        if isinstance(model, Mapping):
            told["model"] = {name: value for name, value in model.items() if name != "version"}
        elif model is not None:
            told["model"] = model
        return replace(self, file=_over(self.file, told))

    def wanted(self) -> Wanted:
        """Raises SpecErrors."""
        return Wanted(self.spec(), self._drain_seconds(), tuple(f"spec.{path}" for path, _ in self._missing_secrets()))

    def process_value(self, setting: ProcessSetting) -> str | None:
        given = self.flags.get(setting.flag)
        if isinstance(given, bool):
            return str(given).lower()
        return given if isinstance(given, str) else self.variables.get(setting.variable) or setting.default

    def spec(self) -> Spec:
        """Raises SpecErrors; a problem with a flag's or variable's value names it."""
        merged = copy.deepcopy(dict(self.file))
        origins: dict[str, str] = {}
        for setting in SETTINGS:
            found = self._override(setting)
            if found is not None and _put(merged, setting.names, found[1]):
                origins[setting.path] = found[0]
        try:
            return parse_spec(merged)
        except SpecErrors as errors:
            raise SpecErrors(_with_origin(problem, origins) for problem in errors.problems) from None

    def _override(self, setting: Setting) -> tuple[str, object] | None:
        given = self.flags.get(setting.flag)
        if given is not None:
            return setting.flag, setting.kind.from_text(given) if isinstance(given, str) else given
        text = self.variables.get(setting.variable)
        return (setting.variable, setting.kind.from_text(text)) if text else None

    def warnings(self) -> list[str]:
        """What was said and will not be heeded."""
        unused = [
            f"spec.{path} is accepted but not used by this sidecar" for path in UNUSED if _get(self.file, path.split(".")) is not None
        ]
        missing = [f"spec.{path} names a secret, but {variable} is not set: {_without(path)}" for path, variable in self._missing_secrets()]
        return unused + missing + list(_misspelt(self.variables))

    def _missing_secrets(self) -> Iterator[tuple[str, str]]:
        """Fields that name a secret, and the variable it should have come by."""
        for path, variable in SECRETS.items():
            if _get(self.file, path.split(".")) is not None and not self.variables.get(variable):
                yield path, variable

    def _drain_seconds(self) -> float:
        told = _get(self.file, ("rollout", "drainTimeout"))
        return DRAIN_SECONDS if told is None else parse_duration(told)


def _without(path: str) -> str:
    if f"spec.{path}" == ENCRYPTION_KEY_FIELD:
        return "nothing is shared, since it would not be encrypted"
    return "this sidecar goes on without it"


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings member by member, all else as a whole. An absent (null) value does not stand over another."""
    both = dict(below)
    for name, value in above.items():
        beneath = both.get(name)
        if value is not None:
            both[name] = _over(beneath, value) if isinstance(value, Mapping) and isinstance(beneath, Mapping) else value
    return both


def _put(mapping: dict[str, Any], names: tuple[str, ...], value: object) -> bool:
    """False if something that is no mapping is in the way; the reader then complains about that."""
    for name in names[:-1]:
        inner = mapping.get(name)
        mapping[name] = mapping = {} if inner is None else inner
        if not isinstance(mapping, dict):
            return False
    mapping[names[-1]] = value
    return True


def _get(mapping: object, names: Iterable[str]) -> object:
    for name in names:
        mapping = mapping.get(name) if isinstance(mapping, Mapping) else None
    return mapping


def _with_origin(problem: SpecProblem, origins: Mapping[str, str]) -> SpecProblem:
    for path, origin in origins.items():
        if problem.path == path or problem.path.startswith((path + ".", path + "[")):
            return SpecProblem(problem.path, f"{problem.message} (from {origin})")
    return problem


def _misspelt(variables: Mapping[str, str]) -> Iterable[str]:
    """Kubernetes sets variables of our prefix for a Service of our name, so unknown ones are refused by nobody."""
    known = [setting.variable for setting in SETTINGS] + [setting.variable for setting in PROCESS_SETTINGS]
    for name in sorted(variables):
        near = difflib.get_close_matches(name, known, 1, 0.9) if name.startswith(VARIABLE_PREFIX) and name not in known else []
        if near:
            yield f"{name} is no setting of the sidecar; did you mean {near[0]}?"
