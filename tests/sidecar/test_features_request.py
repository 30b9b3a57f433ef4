import json
from typing import Any

import pytest

from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.features.entities import FeatureKeys, rows_of
from inference_cache_sidecar.features.request import MAX_ROWS, FeatureRequest, parse


def request(features: Any = ("users:age",), entities: Any = None, **fields: Any) -> FeatureRequest | None:
    return parse(json.dumps({"features": features, "entities": {"user_id": [1]} if entities is None else entities, **fields}).encode())


def understood(*given: Any, **fields: Any) -> FeatureRequest:
    asked = request(*given, **fields)
    assert asked is not None
    return asked


def test_features_and_rows_are_told_apart() -> None:
    asked = understood(["users:age", "items:title"], {"user_id": [1, 2], "item_id": ["a", "b"]})
    assert [(feature.view, feature.name, feature.column) for feature in asked.features] == [
        ("users", "age", "age"),
        ("items", "title", "title"),
    ]
    assert (asked.count, asked.views, list(asked.entities)) == (2, ("users", "items"), ["user_id", "item_id"])


def test_full_names_carry_the_view() -> None:
    asked = understood(["users:age", "items:age"], full_feature_names=True)
    assert [feature.column for feature in asked.features] == ["users__age", "items__age"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="no-object"),
        pytest.param(b'{"features": ["users:age"]}', id="no-entities"),
        pytest.param(b'{"entities": {"user_id": [1]}, "features": ["users:age"]', id="broken"),
        pytest.param(b'{"entities": {"user_id": ["\\ud800"]}, "features": ["users:age"]}', id="lone-surrogate"),
    ],
)
def test_what_is_no_request_for_features_passes(body: bytes) -> None:
    assert parse(body) is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"feature_service": "all"}, id="feature-service"),
        pytest.param({"request_context": {"now": [1]}}, id="request-context"),
        pytest.param({"include_feature_view_version_metadata": False}, id="new-field"),
        pytest.param({"full_feature_names": "yes"}, id="full-names-no-boolean"),
        pytest.param({"features": []}, id="no-features"),
        pytest.param({"features": ["age"]}, id="no-view"),
        pytest.param({"features": [":age"]}, id="empty-view"),
        pytest.param({"features": "users:age"}, id="features-no-list"),
        pytest.param({"features": [1]}, id="feature-no-text"),
        pytest.param({"features": ["users:age", "users:age"]}, id="feature-twice"),
        pytest.param({"features": ["users:age", "items:age"]}, id="clashing-names"),
        pytest.param({"features": ["users:user_id"]}, id="named-as-a-join-key"),
        pytest.param({"entities": {}}, id="no-join-key"),
        pytest.param({"entities": [1]}, id="entities-no-object"),
        pytest.param({"entities": {"user_id": []}}, id="no-rows"),
        pytest.param({"entities": {"user_id": 1}}, id="no-column"),
        pytest.param({"entities": {"user_id": [1], "item_id": ["a", "b"]}}, id="columns-of-different-length"),
        pytest.param({"entities": {"user_id": [1, "1"]}}, id="mixed-types"),
        pytest.param({"entities": {"user_id": [1.0]}}, id="number-with-a-point"),
        pytest.param({"entities": {"user_id": [2**70]}}, id="number-beyond-64-bits"),
        pytest.param({"entities": {"user_id": [True]}}, id="boolean"),
        pytest.param({"entities": {"user_id": [None]}}, id="null"),
        pytest.param({"entities": {"user_id": [[1]]}}, id="list"),
        pytest.param({"entities": {"user_id": list(range(MAX_ROWS + 1))}}, id="too-many-rows"),
    ],
)
def test_what_is_not_wholly_understood_passes(fields: dict[str, Any]) -> None:
    assert request() is not None
    assert request(**{"features": ["users:age"], "entities": {"user_id": [1]}, **fields}) is None


def test_a_narrowed_request_asks_for_some_features_of_some_rows() -> None:
    asked = understood(["users:age", "items:title"], {"user_id": [1, 2, 3], "item_id": ["a", "b", "c"]}, full_feature_names=True)
    assert json.loads(asked.narrowed(asked.features[1:], [2, 0])) == {
        "features": ["items:title"],
        "entities": {"user_id": [3, 1], "item_id": ["c", "a"]},
        "full_feature_names": True,
    }


def digests(entities: Any, tenant: bytes = b"") -> list[bytes]:
    return list(rows_of(understood(entities=entities), tenant).digests)


def test_a_row_is_known_by_its_join_keys_and_typed_values_in_whatever_order_of_keys() -> None:
    assert digests({"a": [1], "b": ["x"]}) == digests({"b": ["x"], "a": [1]})
    others = [{"a": ["1"], "b": ["x"]}, {"a": [2], "b": ["x"]}, {"a": [1], "c": ["x"]}, {"a": [1]}, {"ab": [1], "": ["x"]}]
    rows = [digests(entities)[0] for entities in ({"a": [1], "b": ["x"]}, *others)]
    assert len(set(rows)) == len(rows)


def test_neighbouring_values_do_not_run_into_each_other() -> None:
    assert digests({"a": ["x"], "b": ["yz"]}) != digests({"a": ["xy"], "b": ["z"]})
    assert digests({"a": ['x","y']}) != digests({"a": ["x"], "b": ["y"]})


def test_tenants_share_no_row() -> None:
    assert digests({"a": [1]}, b"one") != digests({"a": [1]}, b"other")


def test_equal_rows_are_one() -> None:
    rows = rows_of(understood(entities={"a": [7, 8, 7, 9, 8]}), b"")
    assert (list(rows.places), list(rows.firsts), len(rows.digests)) == ([0, 1, 0, 2, 1], [0, 1, 3], 3)
    assert rows.epochs == [["entity:a=7", "entity:a=8", "entity:a=9"]]


def test_the_names_of_columns_are_kept_for_everything_but_the_rows() -> None:
    keys = FeatureKeys(Keyspace("test"))
    first = keys.names(understood(entities={"a": [1], "b": [2]}), b"")
    assert first == keys.names(understood(entities={"a": [3, 4], "b": [5, 6]}), b"")
    others = [
        keys.names(understood(entities={"b": [2], "a": [1]}), b""),
        keys.names(understood(["users:name"], {"a": [1], "b": [2]}), b""),
        keys.names(understood(entities={"a": [1], "b": [2]}, full_feature_names=True), b""),
        keys.names(understood(entities={"a": [1], "b": [2]}), b"tenant"),
    ]
    assert len({first, *others}) == 5
