"""List inputs reused item by item: the client cannot tell a merged answer from upstream's own."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.items.answers import explode, merge
from inference_cache_sidecar.items.rows import is_listwise
from inference_cache_sidecar.items.split import Split, split, upstream_body
from inference_cache_sidecar.query.model import Query
from inference_cache_sidecar.query.parse import parse
from inference_cache_sidecar.query.rules import QueryRules

HEADERS = {"content-type": "application/json"}
PAIRS = [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]


def tokens(item: Any) -> int:
    return len(item) if isinstance(item, list) else len(str(item).split()) + 2


def number(*items: Any) -> float:
    return sum(map(ord, json.dumps(items))) % 97 / 97


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def usage(count: int) -> dict[str, Any]:
    return {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0, "prompt_tokens_details": None}


def pooled(prefix: str, request: dict[str, Any], element: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    asked = request["input"]
    items = [asked] if isinstance(asked, str) or isinstance(asked[0], int) else asked
    data = [{"index": place, **element(item)} for place, item in enumerate(items)]
    return {"id": f"{prefix}-1", "object": "list", "created": 7, "model": "m", "data": data, "usage": usage(sum(map(tokens, items)))}


def embeddings(request: dict[str, Any]) -> dict[str, Any]:
    if request.get("encoding_format") == "base64":
        return pooled("embd", request, lambda item: {"object": "embedding", "embedding": f"A{number(item):.5f}="})
    return pooled("embd", request, lambda item: {"object": "embedding", "embedding": [number(item), -1.5e-7, 0.25]})


def classify(request: dict[str, Any]) -> dict[str, Any]:
    return pooled("classify", request, lambda item: {"label": "a } b", "probs": [number(item), 0.5], "num_classes": 2})


def scored(request: dict[str, Any]) -> dict[str, Any]:
    first, second = next(pair for pair in PAIRS if set(pair) <= request.keys())
    right = listed(request[second])
    left = listed(request[first]) * (len(right) if len(listed(request[first])) == 1 else 1)
    data = [{"index": place, "object": "score", "score": number(*pair)} for place, pair in enumerate(zip(left, right, strict=True))]
    count = sum(tokens(one) + tokens(other) for one, other in zip(left, right, strict=True))
    return {"id": "score-1", "object": "list", "created": 7, "model": "m", "data": data, "usage": usage(count)}


def reranked(request: dict[str, Any]) -> dict[str, Any]:
    documents = listed(request["documents"])
    results = [
        {"index": place, "document": {"text": document, "multi_modal": None}, "relevance_score": number(request["query"], document)}
        for place, document in enumerate(documents)
    ]
    results.sort(key=lambda result: result["relevance_score"], reverse=True)
    count = sum(tokens(request["query"]) + tokens(document) for document in documents)
    top_n = request.get("top_n") or len(documents)
    return {"id": "score-1", "model": "m", "usage": {"prompt_tokens": count, "total_tokens": count}, "results": results[:top_n]}


UPSTREAM = {Endpoint.EMBEDDINGS: embeddings, Endpoint.CLASSIFY: classify, Endpoint.SCORE: scored, Endpoint.RERANK: reranked}


def upstream(endpoint: Endpoint, body: bytes) -> bytes:
    return json.dumps(UPSTREAM[endpoint](json.loads(body)), separators=(",", ":"), ensure_ascii=False).encode()


def parts(endpoint: Endpoint, request: dict[str, Any]) -> Split:
    found = split(endpoint, json.dumps(request).encode(), HEADERS, QueryRules())
    assert found is not None
    return found


def serve(endpoint: Endpoint, request: dict[str, Any], cache: dict[bytes, bytes]) -> dict[str, Any]:
    """What the pipeline does, with a dict for a store."""
    whole = parts(endpoint, request)
    missing = [item for item, query in enumerate(whole.queries) if query.canonical not in cache]
    if missing:
        exploded = explode(whole, missing, upstream(endpoint, upstream_body(whole, missing)))
        assert exploded is not None
        cache.update({whole.queries[item].canonical: answer for item, answer in zip(missing, exploded, strict=True)})
    merged = merge(whole, [cache[query.canonical] for query in whole.queries], "new-id")
    assert merged is not None
    answer: dict[str, Any] = json.loads(merged)
    assert answer["id"] == "new-id"
    return answer


CASES = [
    pytest.param(Endpoint.EMBEDDINGS, {"model": "m", "input": ["a b", "c", "d e f"]}, {"model": "m", "input": ["x", "c"]}, id="embeddings"),
    pytest.param(
        Endpoint.EMBEDDINGS,
        {"model": "m", "input": ["a b", "c"], "encoding_format": "base64"},
        {"model": "m", "input": ["c", "é ü"], "encoding_format": "base64"},
        id="embeddings-base64",
    ),
    pytest.param(
        Endpoint.EMBEDDINGS,
        {"model": "m", "input": [[1, 2], [3]]},
        {"model": "m", "input": [[3], [4, 5, 6], [1, 2]]},
        id="embeddings-tokens",
    ),
    pytest.param(Endpoint.CLASSIFY, {"model": "m", "input": ["a b", "c", "d e f"]}, {"model": "m", "input": ["x", "c"]}, id="classify"),
    *(
        pytest.param(
            Endpoint.SCORE,
            {"model": "m", one: "q", other: ["a", "b", "c"]},
            {"model": "m", one: ["q"], other: ["c", "d"]},
            id=f"score-1xN-{other}",
        )
        for one, other in PAIRS
    ),
    pytest.param(
        Endpoint.SCORE,
        {"model": "m", "text_1": ["p", "q"], "text_2": ["a", "b"]},
        {"model": "m", "text_1": ["q", "q"], "text_2": ["b", "a"]},
        id="score-NxN",
    ),
    pytest.param(
        Endpoint.RERANK,
        {"model": "m", "query": "q", "documents": ["a", "b {", "c"]},
        {"model": "m", "query": "q", "documents": ["d", "c", "a"]},
        id="rerank",
    ),
    pytest.param(
        Endpoint.RERANK,
        {"model": "m", "query": "q", "documents": ["a", "b", "c"], "top_n": 2},
        {"model": "m", "query": "q", "documents": ["d", "c", "a"], "top_n": 1},
        id="rerank-top-n",
    ),
]


def without(answer: dict[str, Any], *names: str) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in answer.items() if name not in names]


@pytest.mark.parametrize(("endpoint", "first", "second"), CASES)
def test_a_merged_answer_is_upstreams_own(endpoint: Endpoint, first: dict[str, Any], second: dict[str, Any]) -> None:
    cache: dict[bytes, bytes] = {}
    assert without(serve(endpoint, first, cache), "id") == without(UPSTREAM[endpoint](first), "id")
    assert without(serve(endpoint, second, cache), "id", "usage") == without(UPSTREAM[endpoint](second), "id", "usage")
    assert without(serve(endpoint, first, cache), "id") == without(UPSTREAM[endpoint](first), "id")


@pytest.mark.parametrize(("endpoint", "first", "second"), CASES)
def test_only_the_missing_items_are_asked_for(endpoint: Endpoint, first: dict[str, Any], second: dict[str, Any]) -> None:
    known = {query.canonical for query in parts(endpoint, first).queries}
    whole = parts(endpoint, second)
    missing = [item for item, query in enumerate(whole.queries) if query.canonical not in known]
    assert 0 < len(missing) < len(whole.queries)
    again = split(endpoint, upstream_body(whole, missing), HEADERS, QueryRules())
    asked = again.queries if again else (parse(endpoint, upstream_body(whole, missing), HEADERS, QueryRules()),)
    assert list(asked) == [whole.queries[item] for item in missing]


@pytest.mark.parametrize(("endpoint", "first", "second"), CASES)
def test_an_item_is_the_same_query_as_a_request_for_it_alone(endpoint: Endpoint, first: dict[str, Any], second: dict[str, Any]) -> None:
    for request in (first, second):
        whole = parts(endpoint, request)
        for item, query in enumerate(whole.queries):
            alone = {**request, **whole.rows[item]}
            assert parse(endpoint, json.dumps(alone).encode(), HEADERS, QueryRules()) == query
            in_a_list = {name: [value] if name in ("input", "documents", "text_2") else value for name, value in alone.items()}
            assert parse(endpoint, json.dumps(in_a_list).encode(), HEADERS, QueryRules()) == query


@pytest.mark.parametrize(("endpoint", "first", "second"), CASES)
def test_an_exploded_answer_is_what_upstream_gives_to_the_item_alone(
    endpoint: Endpoint, first: dict[str, Any], second: dict[str, Any]
) -> None:
    whole = parts(endpoint, first)
    every = range(len(whole.queries))
    exploded = explode(whole, every, upstream(endpoint, upstream_body(whole, every)))
    assert exploded is not None
    for item, answer in enumerate(exploded):
        alone = UPSTREAM[endpoint]({**first, **whole.rows[item]})
        assert without(json.loads(answer), "usage") == without(alone, "usage")
        assert json.loads(answer)["usage"].keys() == alone["usage"].keys()


def test_the_clients_own_bytes_go_upstream_where_nothing_was_found() -> None:
    body = b'{ "input": ["a", "b"], "user": "me", "model": "m" }'
    whole = split(Endpoint.EMBEDDINGS, body, HEADERS, QueryRules())
    assert whole is not None
    assert upstream_body(whole, [0, 1]) == body
    assert json.loads(upstream_body(whole, [1])) == {"input": ["b"], "user": "me", "model": "m"}


def test_an_item_that_occurs_twice_is_asked_once_and_counted_twice() -> None:
    request = {"model": "m", "input": ["a b", "c", "a b"]}
    whole = parts(Endpoint.EMBEDDINGS, request)
    assert len(whole.queries) == 2
    assert json.loads(upstream_body(whole, [0, 1]))["input"] == ["a b", "c"]
    assert [element["index"] for element in serve(Endpoint.EMBEDDINGS, request, {})["data"]] == [0, 1, 2]
    exactly = {
        query.canonical: upstream(Endpoint.EMBEDDINGS, json.dumps({"input": text}).encode())
        for query, text in zip(whole.queries, ["a b", "c"], strict=True)
    }
    assert without(serve(Endpoint.EMBEDDINGS, request, exactly), "id") == without(embeddings(request), "id")


def test_counts_are_exact_for_token_ids_and_for_items_asked_alone() -> None:
    cache: dict[bytes, bytes] = {}
    serve(Endpoint.EMBEDDINGS, {"model": "m", "input": [[1, 2, 3], [4], [5, 6]]}, cache)
    assert serve(Endpoint.EMBEDDINGS, {"model": "m", "input": [[4], [7, 8]]}, cache)["usage"] == usage(3)


def test_rerank_keeps_the_scores_of_what_the_client_did_not_want() -> None:
    cache: dict[bytes, bytes] = {}
    asked = {"model": "m", "query": "q", "documents": ["a", "b", "c"]}
    assert len(serve(Endpoint.RERANK, {**asked, "top_n": 1}, cache)["results"]) == 1
    assert len(cache) == 3
    assert without(serve(Endpoint.RERANK, {**asked, "top_n": 0}, cache), "id") == without(reranked(asked), "id")


def test_equal_scores_keep_the_clients_order() -> None:
    request = {"model": "m", "query": "q", "documents": ["ab", "ba", "zz"]}
    assert [result["index"] for result in serve(Endpoint.RERANK, request, {})["results"]].index(0) < 2
    assert without(serve(Endpoint.RERANK, request, {}), "id") == without(reranked(request), "id")


def test_other_parameters_share_no_items() -> None:
    request = {"model": "m", "input": ["a", "b"]}
    plain = parts(Endpoint.EMBEDDINGS, request).queries
    for change in ({"dimensions": 8}, {"encoding_format": "base64"}, {"model": "n"}, {"cache_salt": "s"}):
        other = parts(Endpoint.EMBEDDINGS, {**request, **change}).queries
        assert {query.determinants for query in plain}.isdisjoint(query.determinants for query in other)


@pytest.mark.parametrize(
    ("endpoint", "request_body"),
    [
        pytest.param(Endpoint.EMBEDDINGS, {"input": "a"}, id="text"),
        pytest.param(Endpoint.EMBEDDINGS, {"input": ["a"]}, id="list-of-one"),
        pytest.param(Endpoint.EMBEDDINGS, {"input": [1, 2]}, id="tokens"),
        pytest.param(Endpoint.EMBEDDINGS, {"input": []}, id="empty"),
        pytest.param(Endpoint.EMBEDDINGS, {"input": ["a", [1]]}, id="mixed"),
        pytest.param(Endpoint.EMBEDDINGS, {"input": ["a", 1]}, id="number"),
        pytest.param(Endpoint.EMBEDDINGS, {"input": ["a", ""], "messages": []}, id="two-inputs"),
        pytest.param(Endpoint.EMBEDDINGS, {"input": [{"role": "user", "content": "a"}] * 2}, id="conversation"),
        pytest.param(Endpoint.EMBEDDINGS, {"input": ["a", "b"], "encoding_format": "bytes"}, id="bytes"),
        pytest.param(Endpoint.EMBEDDINGS, {"messages": [{"role": "user", "content": "a"}] * 2}, id="messages"),
        pytest.param(Endpoint.EMBEDDINGS, {"input": [[1, True], [2]]}, id="tokens-with-a-truth-value"),
        pytest.param(Endpoint.RERANK, {"query": "q", "documents": ["a", "b"], "top_n": -1}, id="negative-top-n"),
        pytest.param(Endpoint.RERANK, {"query": "q", "documents": ["a", "b"], "top_n": "1"}, id="top-n-text"),
        pytest.param(Endpoint.RERANK, {"query": ["q"], "documents": ["a", "b"]}, id="query-list"),
        pytest.param(Endpoint.RERANK, {"documents": ["a", "b"]}, id="no-query"),
        pytest.param(Endpoint.SCORE, {"text_1": ["p", "q"], "text_2": ["a", "b", "c"]}, id="2x3"),
        pytest.param(Endpoint.SCORE, {"text_1": ["p", "q"], "text_2": "a"}, id="Nx1"),
        pytest.param(Endpoint.SCORE, {"text_1": "q", "text_2": ["a", "b"], "queries": "q"}, id="two-spellings"),
        pytest.param(Endpoint.TOKENIZE, {"prompt": ["a", "b"]}, id="tokenize"),
        pytest.param(Endpoint.CHAT, {"messages": [1, 2]}, id="chat"),
    ],
)
def test_what_is_no_list_of_independent_items_stays_whole(endpoint: Endpoint, request_body: dict[str, Any]) -> None:
    assert split(endpoint, json.dumps(request_body).encode(), HEADERS, QueryRules()) is None


def test_score_takes_documents_of_several_parts() -> None:
    pictures = [{"content": [{"type": "text", "text": text}]} for text in "ab"]
    assert len(parts(Endpoint.SCORE, {"model": "m", "text_1": "q", "text_2": pictures}).queries) == 2


BROKEN = [
    pytest.param(b"", id="empty"),
    pytest.param(b"[]", id="list"),
    pytest.param(b'{"error":{"message":"no"}}', id="error"),
    pytest.param(b'{"data":[{"index":0},{"index":1}]}', id="no-usage"),
    pytest.param(b'{"data":[{"index":0},{"index":1}],"usage":{"prompt_tokens":"2"}}', id="count-is-text"),
    pytest.param(b'{"data":[{"index":0}],"usage":{"prompt_tokens":2}}', id="too-few"),
    pytest.param(b'{"data":[{"index":0},{"index":0}],"usage":{"prompt_tokens":2}}', id="index-twice"),
    pytest.param(b'{"data":[{"index":0},{"index":2}],"usage":{"prompt_tokens":2}}', id="index-skipped"),
    pytest.param(b'{"data":[1,2],"usage":{"prompt_tokens":2}}', id="no-elements"),
    pytest.param(b'{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[2]}],"usage":{"prompt_tokens":2}', id="cut"),
]


@pytest.mark.parametrize("answer", BROKEN)
def test_an_answer_of_another_form_is_neither_taken_apart_nor_merged(answer: bytes) -> None:
    for endpoint in (Endpoint.EMBEDDINGS, Endpoint.CLASSIFY):
        whole = parts(endpoint, {"model": "m", "input": ["a", "b"]})
        assert explode(whole, [0, 1], answer) is None
        fitting = b'{"data":[{"index":0}],"usage":{"prompt_tokens":2}}'
        assert merge(whole, [fitting, fitting], "id") is not None
        assert answer == fitting or merge(whole, [fitting, answer], "id") is None


def test_an_answer_written_with_spaces_or_nested_objects_is_read_as_well() -> None:
    whole = parts(Endpoint.EMBEDDINGS, {"model": "m", "input": ["a", "b"]})
    for extra in ({}, {"meta": {"x": "}"}}, {"text": "}]"}):
        data = [{"index": place, "embedding": [place], **extra} for place in range(2)]
        answer = {"id": "1", "data": data, "usage": {"prompt_tokens": 3}}
        for written in (json.dumps(answer), json.dumps(answer, separators=(",", ":"))):
            exploded = explode(whole, [0, 1], written.encode())
            assert exploded is not None
            assert [json.loads(one)["data"] for one in exploded] == [[{**element, "index": 0}] for element in data]
            merged = merge(whole, exploded, "1")
            assert merged is not None
            assert json.loads(merged) == answer


def test_a_listwise_model_is_known_by_its_name_or_root() -> None:
    assert is_listwise("reranker", "/models/jinaai/Jina_Reranker_v3")
    assert not is_listwise("reranker", "/models/BAAI/bge-reranker-v2-m3")


@settings(max_examples=60)
@given(st.lists(st.text(max_size=6), min_size=2, max_size=8), st.lists(st.text(max_size=6), min_size=2, max_size=8))
def test_any_two_lists_are_answered_as_upstream_would(first: list[str], second: list[str]) -> None:
    cache: dict[bytes, bytes] = {}
    for texts in (first, second):
        request = {"model": "m", "query": "q", "documents": texts}
        assert without(serve(Endpoint.RERANK, request, cache), "id", "usage") == without(reranked(request), "id", "usage")
    texts = list(dict.fromkeys(first))
    if len(texts) > 1:
        fresh = {"model": "m", "input": texts}
        assert without(serve(Endpoint.EMBEDDINGS, fresh, {}), "id") == without(embeddings(fresh), "id")


def test_queries_of_one_list_share_a_scope() -> None:
    queries: tuple[Query, ...] = parts(Endpoint.EMBEDDINGS, {"model": "m", "input": ["a", "b"]}).queries
    assert queries[0].determinants == queries[1].determinants
    assert not any(query.semantic for query in queries)
