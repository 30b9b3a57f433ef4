"""What the chart repeats of the project, and what its values say of themselves."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_cache_operator.webhook import configuration

PROJECT = Path(__file__).resolve().parents[2]
CHART = PROJECT / "charts" / "inference-cache"


def test_the_charts_definition_is_the_projects() -> None:
    name = "inferencecaches.inferencecache.io.yaml"
    assert (CHART / "files" / name).read_bytes() == (PROJECT / "crds" / name).read_bytes()


@pytest.mark.parametrize("expression", [configuration.LOOKS_LIKE_VLLM, configuration.NOT_YET_INJECTED], ids=["vllm", "not-yet"])
def test_the_charts_conditions_are_the_webhooks(expression: str) -> None:
    assert f"\n  {expression}\n" in (CHART / "templates" / "webhook" / "_conditions.tpl").read_text()


def test_chart_and_project_have_one_version() -> None:
    version = re.search(r'^version = "(.+)"$', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert version is not None
    assert chart["appVersion"] == version[1]


def test_every_value_is_in_the_schema_and_every_property_has_a_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(_described(schema, schema)) - {"global"} == set(_named(values, schema, schema))


def _described(part: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    part = _resolved(part, schema)
    for name, inner in part.get("properties", {}).items():
        yield from _described(inner, schema, f"{path}.{name}".lstrip("."))
    if not part.get("properties"):
        yield path


def _named(values: Any, part: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The schema's leaves, as far as the values go."""
    part = _resolved(part, schema)
    if not part.get("properties"):
        yield path
        return
    given = values if isinstance(values, Mapping) else {}
    optional = ("requests", "limits", "claims", "name", "kind", "group")
    for name in [*given, *(each for each in part["properties"] if each in optional and each not in given)]:
        yield from _named(given.get(name), part["properties"][name], schema, f"{path}.{name}".lstrip("."))


def _resolved(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
