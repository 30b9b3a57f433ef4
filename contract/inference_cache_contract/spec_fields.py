"""How a dataclass says what its fields are in a spec: `Annotated[float, Says(DURATION, "help")] = 0.0`.

Readers, tables and pages walk the `members` that this makes of it.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference_cache_contract.spec_kinds import Kind


@dataclass(frozen=True, slots=True)
class Says:
    """Annotation of a field that holds one value. A default of None: the spec need not say, and nothing stands for it."""

    kind: Kind[Any]
    help: str
    name: str | None = None
    """As the spec writes it; None for the attribute in camel case."""


@dataclass(frozen=True, slots=True)
class Holds:
    """Annotation of a field that holds other fields. `Annotated[X | None, Holds(…)] = None`: None unless the spec has the section."""

    help: str
    foreign: Mapping[str, Says] = dataclasses.field(default_factory=dict)
    """Describes the fields of a class that cannot say it itself."""


@dataclass(frozen=True, slots=True)
class Leaf:
    attribute: str
    name: str
    kind: Kind[Any]
    default: Any
    help: str

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING


@dataclass(frozen=True, slots=True)
class Section:
    attribute: str
    name: str
    cls: type[Any]
    members: "tuple[Member, ...]"
    help: str


Member = Leaf | Section


def members(cls: type[Any], foreign: Mapping[str, Says] | None = None) -> tuple[Member, ...]:
    """In the order of the class. Raises KeyError for a field that nothing describes."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple(_member(field, hints[field.name], foreign or {}) for field in dataclasses.fields(cls))


def _member(field: "dataclasses.Field[Any]", hint: Any, foreign: Mapping[str, Says]) -> Member:
    said = hint.__metadata__[0] if typing.get_origin(hint) is typing.Annotated else foreign[field.name]
    if isinstance(said, Says):
        return Leaf(field.name, said.name or camel(field.name), said.kind, field.default, said.help)
    cls = _without_none(typing.get_args(hint)[0])
    return Section(field.name, camel(field.name), cls, members(cls, said.foreign), said.help)


def _without_none(cls: Any) -> Any:
    return next((each for each in typing.get_args(cls) if each is not type(None)), cls)


def camel(attribute: str) -> str:
    """As specs and JSON documents write a name."""
    head, *tail = attribute.split("_")
    return head + "".join(word.capitalize() for word in tail)
