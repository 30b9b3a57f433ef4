"""Lists reused item by item, through a running sidecar."""

import orjson
import pytest

from inference_cache_toolkit.standin.faults import Fault

EMBED = "/v1/embeddings"


def vectors(answer) -> list:
    return [row["embedding"] for row in answer.json()["data"]]


async def test_only_the_missing_items_of_a_list_are_asked_upstream(sidecar, standin):
    first = await sidecar.post(EMBED, {"model": "tiny", "input": ["a", "b"]})
    second = await sidecar.post(EMBED, {"model": "tiny", "input": ["b", "c", "a"]})
    assert (first.kind, second.kind) == ("miss", "partial")
    assert 'detail="items=2/3"' in second.cache_status
    assert orjson.loads(standin.seen[-1].body)["input"] == ["c"]
    direct = await sidecar.session.post(sidecar.running.parts.upstream.base + EMBED, json={"model": "tiny", "input": ["b", "c", "a"]})
    assert vectors(second) == [row["embedding"] for row in (await direct.json())["data"]]
    assert [row["index"] for row in second.json()["data"]] == [0, 1, 2]


async def test_a_list_whose_items_are_all_known_asks_nobody(sidecar, standin):
    for text in ("a", "b"):
        await sidecar.post(EMBED, {"model": "tiny", "input": text})
    both = await sidecar.post(EMBED, {"model": "tiny", "input": ["b", "a"]})
    assert both.kind == "exact"
    assert standin.inferences == 2
    assert both.headers["Cache-Control"] == "private, no-store"


async def test_an_item_of_a_list_answers_the_same_question_alone(sidecar, standin):
    listed = await sidecar.post(EMBED, {"model": "tiny", "input": ["a", "b"]})
    alone = await sidecar.post(EMBED, {"model": "tiny", "input": "b"})
    assert alone.kind == "exact"
    assert vectors(alone) == vectors(listed)[1:]
    assert standin.inferences == 1


async def test_other_parameters_are_other_items(sidecar):
    await sidecar.post(EMBED, {"model": "tiny", "input": ["a", "b"]})
    other = await sidecar.post(EMBED, {"model": "tiny", "input": ["a", "b"], "dimensions": 8})
    assert other.kind == "miss"


@pytest.mark.parametrize(
    ("path", "first", "second", "rows"),
    [
        pytest.param(
            "/rerank",
            {"query": "q", "documents": ["x", "y"]},
            {"query": "q", "documents": ["y", "z", "x"]},
            lambda body: [(row["index"], row["relevance_score"]) for row in body["results"]],
            id="rerank",
        ),
        pytest.param(
            "/score",
            {"text_1": "q", "text_2": ["x", "y"]},
            {"text_1": "q", "text_2": ["y", "z"]},
            lambda body: [(row["index"], row["score"]) for row in body["data"]],
            id="score",
        ),
        pytest.param(
            "/classify",
            {"input": ["x", "y"]},
            {"input": ["y", "z"]},
            lambda body: [(r["index"], r["label"]) for r in body["data"]],
            id="classify",
        ),
    ],
)
async def test_a_list_that_is_partly_known_is_answered_as_upstream_would(sidecar, path, first, second, rows):
    await sidecar.post(path, {"model": "tiny", **first})
    partly = await sidecar.post(path, {"model": "tiny", **second})
    assert partly.kind == "partial"
    direct = await sidecar.session.post(sidecar.running.parts.upstream.base + path, json={"model": "tiny", **second})
    assert rows(partly.json()) == rows(await direct.json())


async def test_an_error_for_the_missing_items_is_the_error_of_the_whole_list(sidecar, standin):
    await sidecar.post(EMBED, {"model": "tiny", "input": ["a", "b"]})
    standin.fault = Fault.STATUS_500
    failed = await sidecar.post(EMBED, {"model": "tiny", "input": ["a", "c"]})
    assert failed.status == 500
    standin.fault = None
    assert (await sidecar.post(EMBED, {"model": "tiny", "input": ["a", "c"]})).kind == "partial"


async def test_a_stranger_gets_no_item_of_anothers_list(sidecar, standin):
    await sidecar.post(EMBED, {"model": "tiny", "input": ["a", "b"]}, {"Authorization": "Bearer one"})
    other = await sidecar.post(EMBED, {"model": "tiny", "input": ["a", "b"]}, {"Authorization": "Bearer two"})
    assert other.kind == "miss"
    assert standin.inferences == 2
