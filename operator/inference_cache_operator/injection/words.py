"""The words of a container's command line, with what Kubernetes fills in for `$(NAME)`. Pure; `shell` and `command` read further."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_REFERENCE: Final = re.compile(r"\$(\$)|\$\(([^()\s]*)\)")

MOST_CHARACTERS: Final = 100_000
"""That are filled into one text: variables made of variables may be of any length. What does not fit counts as unknown."""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    """Parts that are not known before the container runs stand as they were written, e.g. `$(NAME)`."""
    known: bool = True


def environment(container: Mapping[str, Any]) -> dict[str, str | None]:
    """The variables that a container names, in its own `env`; None where the value comes from elsewhere."""
    known: dict[str, str | None] = {}
    for variable in container.get("env") or ():
        value = None
        if not variable.get("valueFrom"):
            word = expand(variable.get("value") or "", known)
            value = word.text if word.known else None
        known[variable.get("name") or ""] = value
    return known


def expand(text: str, variables: Mapping[str, str | None]) -> Word:
    """`$(NAME)` becomes the variable's value, `$$` becomes `$`; names that nobody set stay, as Kubernetes leaves them."""
    known, room = True, MOST_CHARACTERS

    def replace(match: re.Match[str]) -> str:
        nonlocal known, room
        if match[1]:
            return "$"
        value = variables.get(match[2])
        if value is None or len(value) > room:
            known = False
            return match[0]
        room -= len(value)
        return value

    return Word(_REFERENCE.sub(replace, text), known)
