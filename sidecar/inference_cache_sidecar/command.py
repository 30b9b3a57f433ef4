"""`inference-cache sidecar`: reads flags, environment and file once, and starts the application. The only reader of the environment."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import yaml

from inference_cache_contract.endpoints import (
    ADMIN_TOKEN_VARIABLE,
    ENCRYPTION_KEYS_VARIABLE,
    KAFKA_PASSWORD_VARIABLE,
    KAFKA_USERNAME_VARIABLE,
    REDIS_URL_VARIABLE,
    TENANCY_KEY_VARIABLE,
)
from inference_cache_contract.errors import SpecErrors, SpecProblem
from inference_cache_contract.spec import Spec, show_spec
from inference_cache_sidecar import settings as process
from inference_cache_sidecar.flags import PROGRAM, parse_flags
from inference_cache_sidecar.layers import Layers
from inference_cache_sidecar.settings import PROCESS_SETTINGS, Address, ProcessSetting, Secrets, Settings
from inference_cache_sidecar.spec_file import load_spec_file

T = TypeVar("T")
_NOWHERE = Address("", 0)
_KAFKA_LOGIN = (KAFKA_USERNAME_VARIABLE, KAFKA_PASSWORD_VARIABLE)


def main(argv: Sequence[str]) -> int:
    """0 after a clean end, 1 where an address is not free or a package is missing, 2 for a configuration that is refused."""
    try:
        layers, print_only = read_layers(argv, os.environ)
        if print_only:
            sys.stderr.writelines(f"{PROGRAM}: warning: {warning}\n" for warning in layers.warnings())
            sys.stdout.write(config_text(layers))
            return 0
        settings = build_settings(layers)
    except SpecErrors as errors:
        sys.stderr.writelines(f"{PROGRAM}: {problem}\n" for problem in errors.problems)
        return 2
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # FAISS tells at INFO which processor builds it does not have.
    logging.getLogger("faiss").setLevel(logging.WARNING)
    for warning in layers.warnings():
        logging.getLogger(__name__).warning("%s", warning)
    # --help and --print-config must not wait for ONNX and FAISS.
    # Read when NumPy loads: its products here are small, and a pool of spinning threads would take the proxy's core.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from inference_cache_sidecar import app  # noqa: PLC0415
    from inference_cache_sidecar.errors import CannotStart  # noqa: PLC0415

    try:
        app.run(settings)
    except CannotStart as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return 1
    return 0


def read_layers(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[Layers, bool]:
    """The layers, and whether only to print them. Raises SpecErrors."""
    flags, print_only = parse_flags(argv)
    path = Layers(flags, environment, {}).process_value(process.SPEC_FILE)
    return Layers(flags, environment, load_spec_file(Path(path)) if path is not None else {}), print_only


def build_settings(layers: Layers) -> Settings:
    """Raises SpecErrors with all that is wrong anywhere."""
    problems: list[SpecProblem] = []
    listen = _parsed(layers, process.LISTEN, process.parse_address, _NOWHERE, problems)
    admin = _parsed(layers, process.ADMIN, process.parse_address, _NOWHERE, problems)
    features = _parsed(layers, process.FEATURES, process.parse_address, _NOWHERE, problems)
    upstream = _parsed(layers, process.UPSTREAM, process.parse_upstream, "", problems)
    cache_name = _parsed(layers, process.CACHE_NAME, process.parse_cache_name, "", problems)
    log_level = _parsed(layers, process.LOG_LEVEL, process.parse_log_level, "", problems)
    token = _secret(layers, ADMIN_TOKEN_VARIABLE, process.parse_token, None, problems)
    redis = _secret(layers, REDIS_URL_VARIABLE, process.parse_redis, None, problems)
    no_keys: tuple[bytes, ...] = ()
    keys = _secret(layers, ENCRYPTION_KEYS_VARIABLE, process.parse_encryption_keys, no_keys, problems)
    tenancy_key = _secret(layers, TENANCY_KEY_VARIABLE, process.parse_tenancy_key, None, problems)
    kafka_login = [_secret(layers, variable, process.parse_login, None, problems) for variable in _KAFKA_LOGIN]
    spec = _spec(layers, problems)
    problems.extend(_clashes(listen, admin, upstream))
    problems.extend(_halves(kafka_login))
    if problems:
        raise SpecErrors(problems)
    return Settings(listen, upstream, admin, spec, cache_name, log_level, token, redis, Secrets(keys, tenancy_key, *kafka_login), features)


def _parsed(layers: Layers, setting: ProcessSetting, parse: Callable[[str], T], fallback: T, problems: list[SpecProblem]) -> T:
    text = layers.process_value(setting)
    try:
        if text is None:
            raise ValueError(f"is required (or {setting.variable})")
        return parse(text)
    except ValueError as error:
        problems.append(SpecProblem(setting.flag, str(error)))
        return fallback


def _secret(layers: Layers, variable: str, parse: Callable[[str], T], fallback: T, problems: list[SpecProblem]) -> T:
    try:
        return parse(layers.variables.get(variable, ""))
    except ValueError as error:
        problems.append(SpecProblem(variable, str(error)))
        return fallback


def _spec(layers: Layers, problems: list[SpecProblem]) -> Spec:
    try:
        return layers.spec()
    except SpecErrors as errors:
        problems.extend(errors.problems)
        return Spec()


def _clashes(listen: Address, admin: Address, upstream: str) -> list[SpecProblem]:
    """Two names of one address are not looked for: only what is plainly a slip of the pen."""
    if listen.port and listen == admin:
        return [SpecProblem(process.ADMIN.flag, f"{admin} is also where clients connect (--listen)")]
    if upstream == f"http://{listen}":
        return [SpecProblem(process.UPSTREAM.flag, f"{upstream} is the sidecar itself (--listen)")]
    return []


def _halves(login: Sequence[str | None]) -> list[SpecProblem]:
    """Of a user's name and password, the one that is missing."""
    missing = [variable for variable, text in zip(_KAFKA_LOGIN, login, strict=True) if text is None]
    return [SpecProblem(variable, "is missing: a login takes a user's name and a password") for variable in missing if len(missing) == 1]


def config_text(layers: Layers) -> str:
    """YAML that `--spec` loads again to the same spec; the process's own settings stand above it as comments."""
    lines = [f"# {setting.flag} {layers.process_value(setting) or '(not given)'}\n" for setting in PROCESS_SETTINGS]
    return "".join(lines) + yaml.safe_dump(show_spec(layers.spec()), sort_keys=False, allow_unicode=True)
