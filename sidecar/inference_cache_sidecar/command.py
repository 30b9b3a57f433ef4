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
    DRAIN_TOKEN_VARIABLE,
    ENCRYPTION_KEYS_VARIABLE,
    REDIS_URL_VARIABLE,
    TENANCY_KEY_VARIABLE,
)
from inference_cache_contract.errors import SpecErrors, SpecProblem
from inference_cache_contract.spec import Spec, show_spec
from inference_cache_sidecar import settings as process
from inference_cache_sidecar.entrance import Entrance, clashes, entrance_in_need, entrance_of
from inference_cache_sidecar.flags import PROGRAM, parse_flags
from inference_cache_sidecar.layers import Layers
from inference_cache_sidecar.secret_variables import KAFKA_LOGIN, half_login, less_malformed
from inference_cache_sidecar.settings import (
    PROCESS_SETTINGS,
    Address,
    ConfigurationFile,
    DrainSettings,
    ProcessSetting,
    Secrets,
    Settings,
    Wanted,
)
from inference_cache_sidecar.spec_file import load_spec_file
from inference_cache_sidecar.supervisor.inheritance import INHERITED_VARIABLE, parse_inherited

T = TypeVar("T")
_NOWHERE = Address("", 0)


def main(argv: Sequence[str]) -> int:
    """0 after a clean end, 1 where an address is not free or a package is missing, 2 for a configuration that is refused."""
    try:
        layers, print_only = read_layers(argv, os.environ)
        if print_only:
            sys.stderr.writelines(f"{PROGRAM}: warning: {warning}\n" for warning in layers.warnings())
            sys.stdout.write(config_text(layers))
            return 0
        layers = _as_worker(layers) if layers.variables.get(INHERITED_VARIABLE) else layers
        settings = build_settings(layers)
    except SpecErrors as errors:
        sys.stderr.writelines(f"{PROGRAM}: {problem}\n" for problem in errors.problems)
        entrance = entrance_in_need(argv, os.environ)
        if entrance is None:
            return 2
        sys.stderr.write(f"{PROGRAM}: error: the cache does without what is refused, or does not start; requests are passed on\n")
        return _supervised(entrance, argv)
    if settings.supervise and settings.inherited is None:
        return _supervised(entrance_of(settings, layers), argv)
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


def _as_worker(layers: Layers) -> Layers:
    """Without the secrets that are malformed."""
    layers, problems = less_malformed(layers)
    sys.stderr.writelines(f"{PROGRAM}: error: {problem}; this sidecar goes on without it\n" for problem in problems)
    return layers


def _supervised(entrance: Entrance, argv: Sequence[str]) -> int:
    """Returns only where the supervisor cannot be started."""
    from inference_cache_sidecar.errors import CannotStart  # noqa: PLC0415
    from inference_cache_sidecar.supervisor import launching  # noqa: PLC0415

    if launching.upstream_address(entrance.upstream) is None:
        told = "requests wait while the cache is away, since they cannot be passed to an https:// server as they are"
        sys.stderr.write(f"{PROGRAM}: warning: {process.SUPERVISE.flag}: {told}\n")
    try:
        launching.launch(entrance, argv)
    except CannotStart as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return 1


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
    kafka_login = [_secret(layers, variable, process.parse_login, None, problems) for variable in KAFKA_LOGIN]
    drain_token = _secret(layers, DRAIN_TOKEN_VARIABLE, process.parse_token, None, problems)
    revision = _parsed(layers, process.REVISION, process.parse_cache_name, "", problems)
    supervise = _parsed(layers, process.SUPERVISE, process.parse_switch, False, problems)
    inherited = _secret(layers, INHERITED_VARIABLE, parse_inherited, None, problems)
    wanted = _wanted(layers, problems)
    problems.extend(clashes(listen, admin, upstream))
    problems.extend(half_login(layers.variables))
    if problems:
        raise SpecErrors(problems)
    return Settings(
        listen,
        upstream,
        admin,
        wanted.spec,
        cache_name,
        log_level,
        token,
        redis,
        Secrets(keys, tenancy_key, *kafka_login),
        features,
        revision=revision,
        drain_seconds=wanted.drain_seconds,
        missing_secrets=wanted.missing_secrets,
        configuration=_configuration(layers),
        drain=DrainSettings(drain_token),
        inherited=inherited,
        supervise=supervise,
    )


def _configuration(layers: Layers) -> ConfigurationFile | None:
    path = layers.process_value(process.CONFIGURATION)
    return None if path is None else ConfigurationFile(Path(path), lambda configuration: layers.beneath(configuration).wanted())


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


def _wanted(layers: Layers, problems: list[SpecProblem]) -> Wanted:
    try:
        return layers.wanted()
    except SpecErrors as errors:
        problems.extend(errors.problems)
        return Wanted(Spec())


def config_text(layers: Layers) -> str:
    """YAML that `--spec` loads again to the same spec; the process's own settings stand above it as comments."""
    lines = [f"# {setting.flag} {layers.process_value(setting) or '(not given)'}\n" for setting in PROCESS_SETTINGS]
    return "".join(lines) + yaml.safe_dump(show_spec(layers.spec()), sort_keys=False, allow_unicode=True)
