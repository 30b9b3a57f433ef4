"""The resource's definition as its tests read it: a flat table of fields, from the file in crds/."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

FILE: Final = Path(__file__).parents[2] / "crds" / "inferencecaches.inferencecache.io.yaml"
Schema = Mapping[str, Any]


def definition() -> dict[str, Any]:
    """The caller's own."""
    return json.loads(_parsed())


@cache
def _parsed() -> str:
    """YAML takes half a second."""
    return json.dumps(yaml.safe_load(FILE.read_text()))


def schema() -> Schema:
    """Of the whole resource."""
    (version,) = definition()["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def properties(root: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Everything below `path` with its own path, sections before what they hold; the items of a list end in `[]`."""
    for name, inner in root.get("properties", {}).items():
        yield f"{path}.{name}", inner
        yield from properties(inner, f"{path}.{name}")
    if "items" in root:
        yield f"{path}[]", root["items"]
        yield from properties(root["items"], f"{path}[]")


def fields(part: str) -> dict[str, Schema]:
    """Of `spec` or `status`, by path."""
    return dict(properties(schema()["properties"][part], part))
