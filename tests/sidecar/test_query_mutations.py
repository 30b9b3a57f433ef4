"""The mutation table: what one changed field does to a request's scope and digest.

The rows are data, so that a test against a running sidecar can send them as well: data/mutations.json holds base requests
by name and, for each row, the fields to set or unset. `same` must hit what the base stored; `different` must not, and
where both could be found by similarity it must be another scope (unless the row changes the prompt itself).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.scope import Environment, digest_of, scope_of
from inference_cache_sidecar.query.model import Bypass, Query
from inference_cache_sidecar.query.parse import parse
from inference_cache_sidecar.query.rules import QueryRules

DATA = Path(__file__).parent / "data"
TABLE = json.loads((DATA / "mutations.json").read_text())
FIELDS = json.loads((DATA / "request_fields.json").read_text())
HEADERS = {"content-type": "application/json"}
ENVIRONMENT = Environment("default/faq", b"r" * 32, b"t" * 32, "/models/tiny")


def mutated(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in TABLE["bases"][row["base"]].items() if name not in row.get("unset", ())}
    return {**kept, **row.get("set", {})}


def parsed(endpoint: str, request: object, headers: dict[str, str] | None = None) -> Query | Bypass:
    return parse(Endpoint(endpoint), json.dumps(request).encode(), {**HEADERS, **(headers or {})}, QueryRules())


def identity(query: Query) -> tuple[bytes, bytes]:
    scope = scope_of(ENVIRONMENT, query.endpoint.value, query.determinants)
    return scope, digest_of(scope, query.canonical)


def rows() -> list[Any]:
    return [pytest.param(row, id=f"{row['base']}:{row['id']}") for row in TABLE["mutations"]]


@pytest.mark.parametrize("row", rows())
def test_a_changed_field_does_to_the_scope_what_it_does_to_the_answer(row: dict[str, Any]) -> None:
    base = parsed(row["endpoint"], TABLE["bases"][row["base"]])
    changed = parsed(row["endpoint"], mutated(row), row.get("headers"))
    assert isinstance(base, Query)
    if row["expect"] == "bypass":
        assert isinstance(changed, Bypass)
        return
    assert isinstance(changed, Query)
    if row["expect"] == "same":
        assert identity(changed) == identity(base)
        return
    assert identity(changed)[1] != identity(base)[1]
    if base.semantic and changed.semantic:
        assert (identity(changed)[0] != identity(base)[0]) == (row.get("of") != "prompt")


@pytest.mark.parametrize("endpoint", FIELDS)
def test_every_field_of_the_request_schema_is_in_the_table(endpoint: str) -> None:
    touched = {name for row in TABLE["mutations"] if row["endpoint"] == endpoint for name in (*row.get("set", {}), *row.get("unset", ()))}
    assert set(FIELDS[endpoint]) - touched == set()


def test_the_table_covers_every_endpoint_with_well_over_sixty_fields() -> None:
    assert {row["endpoint"] for row in TABLE["mutations"]} == {endpoint.value for endpoint in Endpoint}
    assert len({(row["endpoint"], name) for row in TABLE["mutations"] for name in row.get("set", {})}) > 200
