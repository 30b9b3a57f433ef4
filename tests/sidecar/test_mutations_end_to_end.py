"""The mutation table through a running sidecar: what must not share an answer never hits, what must share one always does.

The rows and what they promise stand in data/mutations.json; test_query_mutations holds the same table against the parser alone.
"""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TABLE = json.loads((Path(__file__).parent / "data" / "mutations.json").read_text())
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
    "classify": "/classify",
    "rerank": "/rerank",
    "score": "/score",
    "tokenize": "/tokenize",
}
BASES = {row["base"]: PATHS[row["endpoint"]] for row in TABLE["mutations"]}
ITEMWISE = {"documents-order", "text_2-order"}
"""Another whole answer, put together from the same stored items."""


def rows_of(base: str) -> list[dict[str, Any]]:
    return [row for row in TABLE["mutations"] if row["base"] == base]


def mutated(row: dict[str, Any]) -> bytes:
    kept = {name: value for name, value in TABLE["bases"][row["base"]].items() if name not in row.get("unset", ())}
    return json.dumps({**kept, **row.get("set", {})}).encode()


@pytest.fixture
def standin(standin):
    standin.models = ("tiny", "emb", "cls", "rr")
    return standin


@pytest.mark.parametrize("base", BASES)
async def test_what_differs_never_hits_and_what_is_the_same_always_does(sidecar, base):
    path, wrong = BASES[base], []
    for number, row in enumerate(rows_of(base)):
        # A tenant for each row: what one row stores is not there for the next.
        tenant = {"Authorization": f"Bearer {number}"}
        await sidecar.post(path, TABLE["bases"][base], tenant)
        again = await sidecar.post(path, TABLE["bases"][base], tenant)
        changed = await sidecar.post(path, mutated(row), {**tenant, **row.get("headers", {})})
        expected = row["expect"] == "same" or row["id"] in ITEMWISE
        if again.kind != "exact" or ("; hit" in changed.cache_status) != expected:
            wrong.append((row["id"], row["expect"], again.cache_status, changed.status, changed.cache_status))
    assert wrong == []


@pytest.mark.parametrize("base", BASES)
async def test_a_bypass_says_so_and_stores_nothing(sidecar, base):
    for row in (row for row in rows_of(base) if row["expect"] == "bypass"):
        for _ in range(2):
            answer = await sidecar.post(BASES[base], mutated(row), row.get("headers", {}))
            assert answer.kind == "bypass", row["id"]


def test_every_row_of_the_table_is_sent():
    assert sum(len(rows_of(base)) for base in BASES) == len(TABLE["mutations"]) > 400
