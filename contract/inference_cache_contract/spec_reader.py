"""Reads a mapping (what YAML or JSON made of a spec) into the dataclasses that describe it, and writes it back.

All problems are collected, each with its path; nothing is guessed and nothing unknown is let through.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from inference_cache_contract.errors import SpecErrors, SpecProblem, shown
from inference_cache_contract.spec_fields import Leaf, Member, Section, members
from inference_cache_contract.spec_kinds import Kind, json_text

T = TypeVar("T")
Accepted = Mapping[str, Mapping[str, Kind[Any]]]
"""By section's path: fields that are checked but belong to another program than the reader."""


def read(section: Section, raw: object, path: str, accepted: Accepted, problems: list[SpecProblem]) -> Any:
    """The section's object; None, and `problems` grown, if anything in it is wrong."""
    if not isinstance(raw, Mapping):
        problems.append(SpecProblem(path, f"{shown(raw)} is not a mapping"))
        return None
    before = len(problems)
    others = accepted.get(path, {})
    problems.extend(_unknown(raw, [member.name for member in section.members] + list(others), path))
    values: dict[str, Any] = {}
    for member in section.members:
        if raw.get(member.name) is not None:
            values[member.attribute] = _read_member(member, raw[member.name], f"{path}.{member.name}", accepted, problems)
        elif isinstance(member, Leaf) and member.required:
            problems.append(SpecProblem(f"{path}.{member.name}", "is required"))
    for name, kind in others.items():
        if raw.get(name) is not None:
            read_value(kind, raw[name], f"{path}.{name}", problems)
    return section.cls(**values) if len(problems) == before else None


def _read_member(member: Member, raw: object, path: str, accepted: Accepted, problems: list[SpecProblem]) -> Any:
    if isinstance(member, Section):
        return read(member, raw, path, accepted, problems)
    return read_value(member.kind, raw, path, problems)


def read_value(kind: Kind[T], raw: object, path: str, problems: list[SpecProblem]) -> T | None:
    try:
        return kind.parse(raw)
    except SpecErrors as errors:
        problems.extend(problem.below(path) for problem in errors.problems)
    except ValueError as error:
        problems.append(SpecProblem(path, str(error)))
    return None


def _unknown(raw: Mapping[object, object], known: list[str], path: str) -> Iterable[SpecProblem]:
    for name in raw:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            yield SpecProblem(f"{path}.{name}", "unknown field" + (f"; did you mean {near[0]}?" if near else ""), unknown=True)


def write(parts: Iterable[Member], value: object) -> dict[str, object]:
    """The mapping that `read` turns into `value`; fields that stand for nothing (None) are left out."""
    written: dict[str, object] = {}
    for member in parts:
        part = getattr(value, member.attribute)
        if part is None:
            continue
        if isinstance(member, Section):
            written[member.name] = write(member.members, part)
        elif (shown_part := member.kind.show(part)) is not None:
            written[member.name] = shown_part
    return written


def rows(cls: type[T]) -> Kind[tuple[T, ...]]:
    """The kind of a list whose items are sections with a unique `name`."""
    row = Section("", "", cls, members(cls), "")

    def parse(raw: object) -> tuple[T, ...]:
        if not isinstance(raw, list | tuple):
            raise ValueError(f"{shown(raw)} is not a list")
        problems: list[SpecProblem] = []
        read_rows = [read(row, item, f"[{index}]", {}, problems) for index, item in enumerate(raw)]
        if problems:
            raise SpecErrors(problems)
        _refuse_equal_names(read_rows)
        return tuple(read_rows)

    return Kind("list", "JSON behind a flag", parse, lambda them: [write(row.members, item) for item in them], json_text)


def _refuse_equal_names(read_rows: list[Any]) -> None:
    seen: set[str] = set()
    for index, row in enumerate(read_rows):
        if row.name in seen:
            raise SpecErrors([SpecProblem(f"[{index}].name", f"{row.name!r} stands there twice")])
        seen.add(row.name)
