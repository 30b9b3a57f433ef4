"""Reads flags and environment, once, into `Settings`. `command` and `webhook_command` call it."""

import argparse
import dataclasses
import difflib
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from inference_cache_contract.errors import SpecErrors, SpecProblem
from inference_cache_operator.settings import VARIABLE_PREFIX, Flag, Settings

_EPILOG: Final = f"""\
A flag beats its variable, a variable beats the default. The variable of --log-level is {VARIABLE_PREFIX}LOG_LEVEL,
and so on; where a flag may be repeated, its variable takes values parted by commas. Durations: 10s, 5m, 24h.
"""
_SPEC_DEFAULTS: Final = Settings(own_namespace="", pod_name="")


REQUIRED: Final = frozenset({"own_namespace", "sidecar_image"})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SpecErrors([SpecProblem("usage", f"{message} (see {self.prog} --help)")])


def read_settings(program: str, summary: str, flags: Sequence[Flag], argv: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Raises SpecErrors with all that is wrong; ends the process for --help."""
    given, unknown = parser(program, summary, flags).parse_known_args(argv)
    problems = [SpecProblem("usage", _unknown(program, unknown[0], flags))] if unknown else []
    values: dict[str, Any] = {"pod_name": socket.gethostname().lower()}
    for flag in flags:
        path, texts = _given(flag, vars(given)[flag.flag], environment)
        parsed = _parsed(flag, path, texts, problems)
        if parsed:
            values[flag.field] = tuple(parsed) if flag.repeated else parsed[-1]
    refused = {problem.path for problem in problems}
    missing = [
        flag for flag in flags if flag.field in REQUIRED and flag.field not in values and refused.isdisjoint((flag.flag, flag.variable))
    ]
    problems += [SpecProblem(flag.flag, f"is required (or {flag.variable})") for flag in missing]
    problems += _contradictions(values, flags)
    if problems:
        raise SpecErrors(problems)
    return Settings(**values)


def parser(program: str, summary: str, flags: Sequence[Flag]) -> argparse.ArgumentParser:
    made = _Parser(
        prog=program,
        usage=f"{program} --own-namespace NAME --sidecar-image IMAGE [setting ...]",
        description=summary,
        epilog=_EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36),
        allow_abbrev=False,
    )
    for flag in flags:
        made.add_argument(flag.flag, dest=flag.flag, metavar=flag.metavar, action="append", help=flag.help + _default(flag))
    return made


def _given(flag: Flag, by_flag: list[str] | None, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """Where it was said, and the texts; an empty variable says nothing."""
    if by_flag is not None:
        return flag.flag, by_flag
    text = environment.get(flag.variable, "").strip()
    texts = [part.strip() for part in text.split(",")] if flag.repeated else [text]
    return flag.variable, [each for each in texts if each]


def _parsed(flag: Flag, path: str, texts: Sequence[str], problems: list[SpecProblem]) -> list[Any]:
    parsed = []
    for text in texts:
        try:
            parsed.append(flag.parse(text))
        except ValueError as error:
            problems.append(SpecProblem(path, str(error)))
    return parsed


def _contradictions(values: Mapping[str, Any], flags: Sequence[Flag]) -> list[SpecProblem]:
    by_files, folder = values.get("certificates") == "cert-manager", values.get("tls_folder")
    if folder and not by_files:
        return [SpecProblem("--tls-folder", "goes with --certificates cert-manager")]
    if by_files and not folder and any(flag.field == "tls_folder" for flag in flags):
        return [SpecProblem("--tls-folder", "is required with --certificates cert-manager")]
    return []


def _default(flag: Flag) -> str:
    default = getattr(_SPEC_DEFAULTS, flag.field)
    if default in ("", ()):
        return ""
    if isinstance(default, tuple):
        return f" (default: {', '.join(default)})"
    return f" (default: {default:g}s)" if isinstance(default, float) else f" (default: {default})"


def _unknown(program: str, argument: str, flags: Sequence[Flag]) -> str:
    near = difflib.get_close_matches(argument.partition("=")[0], [flag.flag for flag in flags], 1)
    return f"unknown argument {argument}" + (f"; did you mean {near[0]}?" if near else f" (see {program} --help)")


FIELDS: Final = frozenset(field.name for field in dataclasses.fields(Settings))
"""A test checks every flag's field against them."""
