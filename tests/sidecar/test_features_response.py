import json
from typing import Any

import pytest

from inference_cache_sidecar.features.response import merge, split

PLAIN: dict[str, Any] = {
    "results": [
        {"values": [1, 2], "statuses": ["PRESENT", "PRESENT"], "event_timestamps": ["1970-01-01T00:00:00Z"] * 2},
        {"values": [0.5, None], "statuses": ["PRESENT", "NOT_FOUND"], "event_timestamps": ["2026-01-02T03:04:05Z"] * 2},
    ],
    "metadata": {"feature_names": ["user_id", "score"]},
}


def test_an_answer_is_split_and_merged_to_the_same() -> None:
    answer = split(json.dumps(PLAIN).encode(), 2)
    assert answer is not None
    rows = [[part for kind in (0, 2, 1) for part in (column[kind][row] for column in answer.columns)] for row in (0, 1)]
    assert json.loads(merge(answer.names, rows)) == PLAIN


@pytest.mark.parametrize(
    "written",
    [
        "0.10000000000000000555",
        "1e-17",
        "-0.0",
        "12345678901234567890123456789",
        "NaN",
        '"NaN"',
        '"\\u00e9\\/\\ud83d\\ude00 é"',
        "[1, 2.50,  3]",
        '{"a" : [null]}',
        "[]",
    ],
)
def test_a_value_keeps_every_byte(written: str) -> None:
    text = json.dumps(PLAIN).replace("0.5", written)
    answer = split(text.encode(), 2)
    assert answer is not None
    assert answer.columns[1][0][0] == written.encode()


def test_white_space_and_order_of_members_do_not_matter() -> None:
    pretty = json.dumps({name: PLAIN[name] for name in reversed(PLAIN)}, indent=2)
    assert split(b" " + pretty.encode() + b"\n", 2) == split(json.dumps(PLAIN).encode(), 2)


def changed(**fields: Any) -> bytes:
    return json.dumps({**PLAIN, **fields}).encode()


def with_column(**fields: Any) -> bytes:
    return changed(results=[PLAIN["results"][0], {**PLAIN["results"][1], **fields}])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(json.dumps(PLAIN).encode()[:-1], id="cut-off"),
        pytest.param(json.dumps(PLAIN).encode() + b"x", id="more-behind"),
        pytest.param(changed(status=True), id="another-member"),
        pytest.param(json.dumps({"metadata": PLAIN["metadata"]}).encode(), id="no-results"),
        pytest.param(changed(metadata={"feature_names": ["user_id", "score"], "feature_view_metadata": []}), id="more-metadata"),
        pytest.param(changed(metadata={"feature_names": {"val": ["user_id", "score"]}}), id="names-in-an-older-form"),
        pytest.param(changed(metadata={"feature_names": ["user_id"]}), id="fewer-names"),
        pytest.param(changed(metadata={"feature_names": ["score", "score"]}), id="name-twice"),
        pytest.param(changed(metadata={"feature_names": ["user_id", 7]}), id="name-no-text"),
        pytest.param(with_column(values=[1]), id="fewer-values"),
        pytest.param(with_column(statuses=["PRESENT"]), id="fewer-statuses"),
        pytest.param(with_column(statuses=[1, 1]), id="statuses-no-texts"),
        pytest.param(with_column(event_timestamps=[None, None]), id="timestamps-no-texts"),
        pytest.param(with_column(extra=[]), id="another-part"),
        pytest.param(changed(results=[{"values": [1, 2], "statuses": ["PRESENT"] * 2}] * 2), id="no-timestamps"),
        pytest.param(b'{"results": ' + b"[" * 100_000, id="deep"),
        pytest.param(b"\xff", id="no-utf-8"),
    ],
)
def test_an_answer_of_another_form_is_not_taken_apart(body: bytes) -> None:
    assert split(body, 2) is None


def test_an_answer_to_another_number_of_rows_is_not_taken_apart() -> None:
    assert split(json.dumps(PLAIN).encode(), 3) is None
