"""Reads a spec from YAML, strictly: equal keys twice are refused, and only `true` and `false` are booleans.

YAML 1.1 takes `Off` for false and `2026-01-02` for a date; in a spec they are the words they look like.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

from inference_cache_contract.errors import SpecErrors, SpecProblem, shown

MAX_FILE_BYTES: Final = 2**20
_BOOLEAN_TAG: Final = "tag:yaml.org,2002:bool"
_RESHAPED: Final = (_BOOLEAN_TAG, "tag:yaml.org,2002:timestamp")


class _Loader(yaml.SafeLoader):
    """SafeLoader less its surprises."""

    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML declares it on the class
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _RESHAPED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{shown(key)} stands there twice", key_node.start_mark)
            seen.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(_BOOLEAN_TAG, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def load_spec_file(path: Path) -> dict[str, Any]:
    """The spec as YAML has it, not yet checked; of a whole resource, its `spec`. Raises SpecErrors."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise _refused(path, f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        document = yaml.load(content, _Loader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _refused(path, f"is not YAML: {' '.join(str(error).split())}") from None
    return _spec_of(document, path)


def _spec_of(document: object, path: Path) -> dict[str, Any]:
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise _refused(path, f"{shown(document)} is not a mapping")
    if "apiVersion" not in document:
        return document
    if document.get("kind") != "InferenceCache":
        raise _refused(path, f"kind: {shown(document.get('kind'))} is not InferenceCache")
    return _spec_of(document.get("spec"), path)


def _refused(path: Path, message: str) -> SpecErrors:
    return SpecErrors([SpecProblem(str(path), message)])
