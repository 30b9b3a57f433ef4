"""The sidecar's command line, made from the settings' tables. `command` parses with it."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Final, NoReturn

from inference_cache_contract.endpoints import ADMIN_TOKEN_VARIABLE
from inference_cache_contract.errors import SpecErrors, SpecProblem
from inference_cache_contract.spec_kinds import BOOLEAN
from inference_cache_contract.spec_table import SETTINGS, Setting
from inference_cache_sidecar.settings import PROCESS_SETTINGS

PROGRAM: Final = "inference-cache sidecar"
_USAGE: Final = f"{PROGRAM} --upstream URL [--listen HOST:PORT] [--admin HOST:PORT] [--spec FILE] [setting ...]"
_EPILOG: Final = f"""\
A flag beats its variable, a variable beats the file, the file beats the default.
The variable of --semantic-threshold is INFERENCE_CACHE_SEMANTIC_THRESHOLD, and so on.
{ADMIN_TOKEN_VARIABLE} turns on the admin API's writes (POST /flush, /feedback).
Durations: 24h, 1h30m, 250ms. Bytes: 512Mi, 1G. 0 is a value, never "unset".
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SpecErrors([SpecProblem("usage", f"{message} (see {PROGRAM} --help)")])


def parse_flags(argv: Sequence[str]) -> tuple[dict[str, str | bool], bool]:
    """What was given, by flag, and whether only to print the configuration. Raises SpecErrors; ends the process for --help."""
    known, unknown = parser().parse_known_args(argv)
    if unknown:
        raise SpecErrors([SpecProblem("usage", _unknown(unknown[0]))])
    return {name: value for name, value in vars(known).items() if name.startswith("--") and value is not None}, known.print_config


def _unknown(argument: str) -> str:
    flags = [setting.flag for setting in PROCESS_SETTINGS] + [setting.flag for setting in SETTINGS]
    near = difflib.get_close_matches(argument.partition("=")[0], flags, 1)
    return f"unknown argument {argument}" + (f"; did you mean {near[0]}?" if near else f" (see {PROGRAM} --help)")


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog=PROGRAM,
        usage=_USAGE,
        description="A caching proxy in front of one OpenAI-compatible model server.",
        epilog=_EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36),
        allow_abbrev=False,
    )
    started = made.add_argument_group("the process")
    for setting in PROCESS_SETTINGS:
        default = f" (default: {setting.default})" if setting.default else ""
        if setting.switch:
            started.add_argument(setting.flag, dest=setting.flag, action=argparse.BooleanOptionalAction, help=setting.help + default)
        else:
            started.add_argument(setting.flag, dest=setting.flag, metavar=setting.metavar, help=setting.help + default)
    started.add_argument("--print-config", action="store_true", help="print the effective spec as YAML, and end")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in SETTINGS:
        title = f"spec.{field.names[0]}" if field.section_help else "spec"
        group = groups.get(title) or groups.setdefault(title, made.add_argument_group(title, field.section_help or None))
        _add(group, field)
    return made


def _add(group: "argparse._ArgumentGroup", setting: Setting) -> None:
    told = [text for text in (setting.kind.unit, setting.default_text and f"default: {setting.default_text}") if text]
    text = (setting.help + (f" ({'; '.join(told)})" if told else "")).replace("%", "%%")
    if setting.kind is BOOLEAN:
        group.add_argument(setting.flag, dest=setting.flag, action=argparse.BooleanOptionalAction, help=text)
    else:
        group.add_argument(setting.flag, dest=setting.flag, metavar=_metavar(setting.kind.name), help=text)


def _metavar(kind: str) -> str:
    """A choice shows its words, any other kind its name."""
    return kind.replace(" ", "") if "|" in kind else kind.upper()
