import json
from typing import Any

import pytest

from inference_cache_sidecar.features.writes import MOST_ENTITIES, entities_of, may_change

FRAME = {"user_id": [1, 2, 1], "city": ["x", "y", "x"], "score": [0.5, 1.5, 2.5], "ok": [True, None, False], "event_timestamp": ["t"] * 3}


def entities(frame: Any, join_keys: tuple[str, ...] = (), path: str = "/push") -> set[tuple[str, Any]] | None:
    found = entities_of(path, json.dumps({"push_source_name": "s", "df": frame}).encode(), join_keys)
    return None if found is None else set(found)


@pytest.mark.parametrize("path", ["/push", "/write-to-online-store"])
def test_join_keys_that_are_known_say_what_was_written(path: str) -> None:
    assert entities(FRAME, ("user_id", "item_id"), path) == {("user_id", 1), ("user_id", 2)}


def test_without_known_join_keys_every_column_of_texts_and_whole_numbers_counts() -> None:
    assert entities(FRAME) == {("user_id", 1), ("user_id", 2), ("city", "x"), ("city", "y"), ("event_timestamp", "t")}


def test_a_whole_number_written_with_a_point_is_that_number() -> None:
    assert entities({"user_id": [7.0]}, ("user_id",)) == {("user_id", 7)}


@pytest.mark.parametrize(
    ("frame", "join_keys"),
    [
        pytest.param(FRAME, ("item_id",), id="no-join-key-written"),
        pytest.param({"user_id": [None]}, ("user_id",), id="join-key-without-value"),
        pytest.param({"user_id": [0.5]}, ("user_id",), id="join-key-no-whole-number"),
        pytest.param({"user_id": {"0": 1}}, (), id="another-form-of-frame"),
        pytest.param({}, (), id="nothing-written"),
        pytest.param({"score": [0.5]}, (), id="only-fractions"),
        pytest.param([FRAME], (), id="no-frame"),
        pytest.param({"user_id": list(range(MOST_ENTITIES + 1))}, ("user_id",), id="too-many"),
    ],
)
def test_a_write_whose_entities_cannot_be_told_may_have_changed_any(frame: Any, join_keys: tuple[str, ...]) -> None:
    assert entities(frame, join_keys) is None


@pytest.mark.parametrize("body", [b"", b"[]", b'"df"', b'{"df": 7}', b"{"])
def test_what_is_no_write_at_all_may_have_changed_any(body: bytes) -> None:
    assert entities_of("/push", body, ()) is None


def test_a_materialisation_may_have_changed_any() -> None:
    body = json.dumps({"df": FRAME}).encode()
    assert entities_of("/materialize", body, ("user_id",)) is None


def test_only_writes_change_anything() -> None:
    assert [path for path in ("/push", "/write-to-online-store", "/materialize", "/materialize-incremental") if not may_change(path)] == []
    assert not any(map(may_change, ("/get-online-features", "/health", "/pushed", "/", "/search")))
