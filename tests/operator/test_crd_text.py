"""What people read of the resource: every field described, in the definition and on the page, and in the same words."""

import re
from pathlib import Path
from typing import Final

import pytest
from tests.operator.crd_fields import definition, fields

from inference_cache_contract import pod

PAGE: Final = (Path(__file__).parents[2] / "docs" / "resource.md").read_text()
DESCRIBED: Final = {path: schema for part in ("spec", "status") for path, schema in fields(part).items() if "description" in schema}
WORD_OF_A_LIST: Final = re.compile(r"\[\]$")
TOLD_ONCE: Final = re.compile(r"Ref\.(name|key)$|\.selector\..*\[\]\.|\.resources\.(requests|limits)\.|\[\]$")
"""What the page says in its text, once for all fields alike."""


@pytest.mark.parametrize("path", [path for part in ("spec", "status") for path in fields(part) if not WORD_OF_A_LIST.search(path)])
def test_a_field_is_described_in_sentences(path: str) -> None:
    text = DESCRIBED[path]["description"]
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize("path", [path for path in DESCRIBED if not TOLD_ONCE.search(path)])
def test_the_page_has_a_field_once_with_its_default_and_in_the_same_words(path: str) -> None:
    section = f"### `{path}`\n\n{DESCRIBED[path]['description']}\n"
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{path}` |")]
    assert len(rows) + PAGE.count(section) == 1
    for row in rows:
        *_, default, text = (cell.strip() for cell in row.strip("|").split("|"))
        assert (default, text) == (default_text(DESCRIBED[path].get("default")), DESCRIBED[path]["description"])


def test_the_page_has_no_field_that_there_is_not() -> None:
    assert set(re.findall(r"^\| `((?:spec|status)\.[^`]*)` \|", PAGE, re.MULTILINE)) <= set(DESCRIBED)


def test_the_page_names_the_annotations_that_users_set() -> None:
    for annotation in ("VERSION", "CONTAINER", "PORT", "INJECT", "FLUSH"):
        assert f"| `{getattr(pod, f'{annotation}_ANNOTATION')}` |" in PAGE


def test_the_definition_has_the_names_that_the_programs_use() -> None:
    spec = definition()["spec"]
    (version,) = spec["versions"]
    assert (spec["group"], spec["names"]["kind"], spec["names"]["plural"]) == (pod.GROUP, pod.KIND, pod.PLURAL)
    assert f"{spec['group']}/{version['name']}" == pod.API_VERSION
    assert definition()["metadata"]["name"] == f"{pod.PLURAL}.{pod.GROUP}"


def default_text(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, list):
        return f"`[{', '.join(default)}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`" if default != "Off" else '`"Off"`'
