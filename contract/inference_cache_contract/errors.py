"""The contract's errors: a spec that says something it must not. The person who wrote the spec is to blame."""

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(raw: object) -> str:
    """A refused value as a message may quote it: short, however large it is."""
    return _SHORT.repr(raw)


@dataclass(frozen=True, slots=True)
class SpecProblem:
    """One thing that is wrong, and where: `spec.semantic.threshold`, `1.4 is not in [0, 1]`."""

    path: str
    message: str
    unknown: bool = field(default=False, compare=False)
    """It is a field that this program does not know; a later one may."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"

    def below(self, path: str) -> "SpecProblem":
        """The same problem seen from further up."""
        return replace(self, path=path + self.path)


class SpecErrors(Exception):
    """A spec was refused; `problems` holds everything that is wrong with it, not only the first thing."""

    def __init__(self, problems: Iterable[SpecProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
