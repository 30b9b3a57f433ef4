"""The spec's settings as one flat table: what a flag, a variable and a line of the settings page are called.

The sidecar's command line, `--print-config` and docs/settings.md are all made from `SETTINGS`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_contract.spec import SPEC
from inference_cache_contract.spec_fields import Section
from inference_cache_contract.spec_kinds import Kind

VARIABLE_PREFIX: Final = "INFERENCE_CACHE_"
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Setting:
    """One settable field; `names` lead to it from the spec's root."""

    names: tuple[str, ...]
    section_help: str
    """What the top-level section is about; empty for a field of the root."""
    kind: Kind[Any]
    default: Any
    help: str

    @property
    def path(self) -> str:
        return ".".join(("spec", *self.names))

    @property
    def flag(self) -> str:
        return "--" + _HUMP.sub("-", "-".join(self.names)).lower()

    @property
    def variable(self) -> str:
        return variable_of(self.flag)

    @property
    def default_text(self) -> str:
        """As it would stand in a file."""
        return "" if self.default is None else plain_text(self.kind.show(self.default))


def variable_of(flag: str) -> str:
    return VARIABLE_PREFIX + flag.removeprefix("--").replace("-", "_").upper()


def plain_text(raw: object) -> str:
    """A default as help and documentation print it."""
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, list):
        return ",".join(map(str, raw)) or "none"
    return str(raw) or '""'


def _walk(section: Section, names: tuple[str, ...], about: str) -> Iterator[Setting]:
    for member in section.members:
        path = (*names, member.name)
        if isinstance(member, Section):
            yield from _walk(member, path, about or member.help)
        else:
            yield Setting(path, about, member.kind, None if member.required else member.default, member.help)


SETTINGS: Final[tuple[Setting, ...]] = tuple(_walk(SPEC, (), ""))
