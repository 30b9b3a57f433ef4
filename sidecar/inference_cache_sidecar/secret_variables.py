"""The variables that secrets come by, and what a worker in a pod does with one that is malformed: it goes on as if it had not come.

Whoever starts a sidecar by hand is told, and it ends. In a pod that would take the model away, days after a secret was changed. Pure.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from inference_cache_contract.endpoints import (
    ADMIN_TOKEN_VARIABLE,
    DRAIN_TOKEN_VARIABLE,
    ENCRYPTION_KEYS_VARIABLE,
    KAFKA_PASSWORD_VARIABLE,
    KAFKA_USERNAME_VARIABLE,
    REDIS_URL_VARIABLE,
    TENANCY_KEY_VARIABLE,
)
from inference_cache_contract.errors import SpecProblem
from inference_cache_sidecar import settings as process
from inference_cache_sidecar.layers import Layers

KAFKA_LOGIN: Final = (KAFKA_USERNAME_VARIABLE, KAFKA_PASSWORD_VARIABLE)
_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    ADMIN_TOKEN_VARIABLE: process.parse_token,
    DRAIN_TOKEN_VARIABLE: process.parse_token,
    REDIS_URL_VARIABLE: process.parse_redis,
    ENCRYPTION_KEYS_VARIABLE: process.parse_encryption_keys,
    TENANCY_KEY_VARIABLE: process.parse_tenancy_key,
}


def less_malformed(layers: Layers) -> tuple[Layers, list[SpecProblem]]:
    """`layers` without the secrets that are refused, and what is wrong with each. No message quotes one."""
    problems: list[SpecProblem] = []
    for variable, parse in _PARSERS.items():
        try:
            parse(layers.variables.get(variable, ""))
        except ValueError as error:
            problems.append(SpecProblem(variable, str(error)))
    problems.extend(half_login(layers.variables))
    refused = {problem.path for problem in problems}
    if refused & set(KAFKA_LOGIN):
        refused.update(KAFKA_LOGIN)
    return replace(layers, variables={name: text for name, text in layers.variables.items() if name not in refused}), problems


def half_login(variables: Mapping[str, str]) -> list[SpecProblem]:
    """Of a user's name and password, the one that is missing."""
    missing = [variable for variable in KAFKA_LOGIN if process.parse_login(variables.get(variable, "")) is None]
    return [SpecProblem(variable, "is missing: a login takes a user's name and a password") for variable in missing if len(missing) == 1]
