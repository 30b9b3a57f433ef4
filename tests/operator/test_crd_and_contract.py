"""The resource's definition and what the sidecar accepts as its spec say the same: neither can drift from the other."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.operator.crd_fields import Schema, fields

from inference_cache_contract.quantity import parse_bytes, parse_duration
from inference_cache_contract.spec import SPEC, Category, parse_spec
from inference_cache_contract.spec_accepted import ACCEPTED
from inference_cache_contract.spec_features import ViewTtl
from inference_cache_contract.spec_fields import Leaf, Member, members
from inference_cache_contract.spec_kinds import (
    ANYTHING,
    BOOLEAN,
    BYTES,
    COUNT,
    DURATION,
    ENDPOINTS,
    FRACTION,
    MATCH,
    NAME,
    SEMANTIC_ENDPOINTS,
    Kind,
)
from inference_cache_operator.injection import container
from inference_cache_operator.resource import Rollout

SPEC_FIELDS: Final = fields("spec")
ROWS: Final = {"spec.semantic.categories": Category, "spec.features.views": ViewTtl}
EXAMPLES: Final = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
CLOSED_BELOW: Final = {
    "spec.selector.matchExpressions": ["[]", "[].key", "[].operator", "[].values", "[].values[]"],
    "spec.sidecar.resources": [
        f".{part}{name}" for part in ("requests", "limits") for name in ("", ".cpu", ".memory", ".ephemeral-storage")
    ],
}
"""What the definition says of values that the sidecar does not look into."""


def leaves(parts: tuple[Member, ...], path: str) -> Iterator[tuple[str, Leaf]]:
    """Of the contract's table, items of lists of sections among them."""
    for member in parts:
        inner = f"{path}.{member.name}"
        if isinstance(member, Leaf):
            yield inner, member
            if inner in ROWS:
                yield from leaves(members(ROWS[inner]), f"{inner}[]")
        else:
            yield from leaves(member.members, inner)


def accepted(kind: Kind[Any], path: str) -> Iterator[tuple[str, Kind[Any]]]:
    """What the contract knows and leaves to the operator, objects and lists opened."""
    yield path, kind
    inside = inspect.getclosurevars(kind.parse).nonlocals
    if kind.name == "object":
        for name, inner in inside.get("fields", {}).items():
            yield from accepted(inner, f"{path}.{name}")
    if kind.name == "list":
        yield from accepted(inside["kind"], f"{path}[]")


LEAVES: Final = dict(leaves(SPEC.members, "spec"))
FOREIGN: Final = {
    path: kind for section, held in ACCEPTED.items() for name, top in held.items() for path, kind in accepted(top, f"{section}.{name}")
}


def said_of(kind: Kind[Any], schema: Schema) -> bool:
    """Whether a schema is what a kind of the contract means."""
    if kind in (DURATION, BYTES):
        return schema.get("x-kubernetes-int-or-string") is True and "type" not in schema and schema["minimum"] == 0
    if kind is FRACTION:
        return (schema["type"], schema["minimum"], schema["maximum"]) == ("number", 0, 1)
    if kind is COUNT:
        return (schema["type"], schema["minimum"]) == ("integer", 1)
    if kind is BOOLEAN:
        return schema["type"] == "boolean"
    if kind is ENDPOINTS:
        return schema["type"] == "array" and schema["items"]["enum"] == [each.value for each in SEMANTIC_ENDPOINTS]
    if kind is MATCH:
        return schema["type"] == "object" and list(schema["properties"]) == schema["required"] == ["header"]
    if kind is NAME:
        return schema["type"] == "string" and (schema.get("minLength") == 1 or "pattern" in schema)
    if " | " in kind.name or kind.name == "Gateway":
        return schema["enum"] == [*kind.name.split(" | "), *([False] if "Off" in kind.name.split(" | ") else [])]
    return schema["type"] == {"list": "array"}.get(kind.name, "string")


@pytest.mark.parametrize("path", LEAVES)
def test_a_setting_of_the_sidecar_is_a_field_of_the_resource_of_the_same_kind(path: str) -> None:
    assert said_of(LEAVES[path].kind, SPEC_FIELDS[path]), SPEC_FIELDS[path]


@pytest.mark.parametrize("path", LEAVES)
def test_a_default_of_the_sidecar_is_the_resources_default(path: str) -> None:
    leaf, schema = LEAVES[path], SPEC_FIELDS[path]
    # What is empty anyway is not filled in; nor is anything inside a list, where tools that compare lists as a whole would see drift.
    if leaf.required or leaf.default in (None, "", ()) or "[]" in path:
        assert "default" not in schema
    else:
        assert leaf.kind.parse(schema["default"]) == leaf.default


@pytest.mark.parametrize("path", LEAVES)
def test_what_the_sidecar_requires_the_resource_requires(path: str) -> None:
    section, _, name = path.rpartition(".")
    parent = SPEC_FIELDS.get(section, {})
    assert (name in parent.get("required", [])) is LEAVES[path].required


def test_the_resource_has_a_field_for_all_that_is_the_operators() -> None:
    assert set(FOREIGN) <= set(SPEC_FIELDS)
    wrong = {
        path
        for path, kind in FOREIGN.items()
        if kind is not ANYTHING and kind.name not in ("object", "list") and not said_of(kind, SPEC_FIELDS[path])
    }
    assert wrong == set()


def test_the_resource_has_no_field_that_the_sidecar_would_refuse() -> None:
    inside = {path + below for path, all_below in CLOSED_BELOW.items() for below in all_below}
    sections = {".".join(path.split(".")[:end]) for path in (*LEAVES, *FOREIGN) for end in range(2, 6)}
    item = {f"{path}[]" for path, schema in SPEC_FIELDS.items() if schema.get("type") == "array"}
    match = {f"{path}.header" for path, leaf in LEAVES.items() if leaf.kind is MATCH}
    assert set(SPEC_FIELDS) - set(LEAVES) - set(FOREIGN) - sections - inside - item - match == set()


def test_the_rollouts_defaults_are_the_operators() -> None:
    said = {name: SPEC_FIELDS[f"spec.rollout.{name}"]["default"] for name in ("trigger", "flush", "retain", "drainTimeout")}
    ours = Rollout()
    assert (said["trigger"], said["flush"]) == (ours.trigger, ours.flush)
    assert (parse_duration(said["retain"]), parse_duration(said["drainTimeout"])) == (ours.retain_seconds, ours.drain_seconds)


def test_the_keys_of_secrets_are_those_that_the_operator_reads() -> None:
    said = {
        path.removesuffix(".key"): schema["default"]
        for path, schema in SPEC_FIELDS.items()
        if path.endswith("Ref.key") and "[]" not in path
    }
    assert said == {".".join(("spec", *names)): key for names, _variable, key in container._SECRETS}


@given(st.from_regex(re.compile(SPEC_FIELDS["spec.exact.ttl"]["pattern"], re.ASCII), fullmatch=True))
def test_the_sidecar_takes_every_duration_that_the_resource_takes(text: str) -> None:
    assume(len(text) <= SPEC_FIELDS["spec.exact.ttl"]["maxLength"])
    try:
        parse_duration(text)
    except ValueError as error:
        # Refused by the resource too, by a rule beside the pattern.
        assert "100 years" in str(error)  # noqa: PT017


@given(st.from_regex(re.compile(SPEC_FIELDS["spec.store.memory.maxBytes"]["pattern"], re.ASCII), fullmatch=True))
def test_the_sidecar_takes_every_number_of_bytes_that_the_resource_takes(text: str) -> None:
    assert parse_bytes(text) >= 0


def test_durations_are_all_said_alike() -> None:
    durations = [schema for schema in SPEC_FIELDS.values() if "duration(self)" in str(schema.get("x-kubernetes-validations"))]
    assert len(durations) == 20
    assert len({(each["pattern"], each["maxLength"], each["maximum"], str(each["x-kubernetes-validations"][0])) for each in durations}) == 1


@pytest.mark.parametrize("file", [pytest.param(each, id=each.stem) for each in EXAMPLES])
def test_the_sidecar_takes_the_samples(file: Path) -> None:
    documents = list(yaml.safe_load_all(file.read_text()))
    (resource,) = [each for each in documents if each["kind"] == "InferenceCache"]
    spec = parse_spec(resource["spec"])
    (deployment,) = [each for each in documents if each["kind"] == "Deployment"]
    template = deployment["spec"]["template"]["metadata"]
    assert template["annotations"]["inferencecache.io/version"] == spec.model.version
    assert resource["spec"]["selector"]["matchLabels"].items() <= template["labels"].items()
