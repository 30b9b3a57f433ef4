"""What events may say, and that nothing else gets further than a reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_cache_sidecar.events.payloads import CHANNELS, MAX_BYTES, BadEvent, Entity, Event, parse
from inference_cache_sidecar.flush import FlushRequest

LONGEST = "x" * 256
SECRET = "grandmother's maiden name"


@pytest.mark.parametrize(
    ("payload", "flushes"),
    [
        pytest.param({"version": "v1"}, [("version", "v1")], id="version"),
        pytest.param({"adapter": "sql"}, [("adapter", "sql")], id="adapter"),
        pytest.param({"model": "faq", "version": "v1", "adapter": "sql"}, [("version", "v1"), ("adapter", "sql")], id="both"),
        pytest.param({"version": LONGEST}, [("version", LONGEST)], id="longest-name"),
        pytest.param({"version": "v1", "adapter": None}, [("version", "v1")], id="null-is-absent"),
        pytest.param({"version": "v1", "by": ["ci", {"run": 1}]}, [("version", "v1")], id="unknown-fields-are-ignored"),
    ],
)
def test_a_model_update_flushes_the_version_and_the_adapter_it_names(payload: object, flushes: list[tuple[Any, str]]) -> None:
    assert parse("model_updates", encoded(payload)) == Event("model_updates", requests(flushes))


@pytest.mark.parametrize(
    ("payload", "tag", "entity"),
    [
        pytest.param({"user_id": "u1"}, "user:u1", Entity("user_id", "u1"), id="text"),
        pytest.param({"user_id": 42}, "user:42", Entity("user_id", "42"), id="integer"),
        pytest.param({"user_id": 0}, "user:0", Entity("user_id", "0"), id="zero-is-a-value"),
        pytest.param({"user_id": "u1", "entity": "customer"}, "user:u1", Entity("customer", "u1"), id="other-join-key"),
        pytest.param({"user_id": "Jürgen"}, "user:Jürgen", Entity("user_id", "Jürgen"), id="not-ascii"),
    ],
)
def test_activity_flushes_the_users_tag_and_forgets_the_users_features(payload: object, tag: str, entity: Entity) -> None:
    assert parse("user_activity", encoded(payload)) == Event("user_activity", (FlushRequest("tag", tag),), (entity,))


@pytest.mark.parametrize(
    ("payload", "flushes"),
    [
        pytest.param({"tags": ["a", "b"]}, [("tag", "a"), ("tag", "b")], id="tags"),
        pytest.param({"tags": ["b", "a", "b"]}, [("tag", "b"), ("tag", "a")], id="a-tag-twice-is-flushed-once"),
        pytest.param({"category": "pricing"}, [("category", "pricing")], id="category"),
        pytest.param({"tags": ["a"], "category": "pricing"}, [("tag", "a"), ("category", "pricing")], id="tags-and-category"),
        pytest.param({"tags": [], "category": "pricing"}, [("category", "pricing")], id="no-tag-but-a-category"),
        pytest.param({"all": True}, [("all", "")], id="all"),
        pytest.param({"all": True, "tags": ["a"], "category": "pricing"}, [("all", "")], id="all-includes-the-others"),
    ],
)
def test_a_knowledge_update_flushes_what_it_lists(payload: object, flushes: list[tuple[Any, str]]) -> None:
    assert parse("kb_updates", encoded(payload)) == Event("kb_updates", requests(flushes))


@pytest.mark.parametrize("user", [pytest.param("u" * 124, id="too-long"), pytest.param("u,1", id="comma"), pytest.param("u ", id="blank")])
def test_a_user_whose_tag_no_answer_can_carry_concerns_features_alone(user: str) -> None:
    assert parse("user_activity", encoded({"user_id": user})) == Event("user_activity", (), (Entity("user_id", user),))


def test_the_longest_user_whose_tag_an_answer_can_carry_is_flushed() -> None:
    assert parse("user_activity", encoded({"user_id": "u" * 123})).flushes == requests([("tag", "user:" + "u" * 123)])


@pytest.mark.parametrize(
    ("channel", "payload", "path"),
    [
        pytest.param("model_updates", {}, "none of version and adapter", id="nothing-to-flush"),
        pytest.param("model_updates", {"model": "faq"}, "none of version and adapter", id="only-a-model"),
        pytest.param("model_updates", {"version": 1}, "version: an integer", id="version-is-a-number"),
        pytest.param("model_updates", {"version": "v1", "model": ["faq"]}, "model: a list", id="model-is-a-list"),
        pytest.param("model_updates", {"version": "v1", "adapter": True}, "adapter: a boolean", id="adapter-is-a-boolean"),
        pytest.param("model_updates", {"version": ""}, "version: a text of 0 characters", id="empty"),
        pytest.param("model_updates", {"version": LONGEST + "x"}, "version: a text of 257 characters", id="too-long"),
        pytest.param("model_updates", {"version": "\ud800"}, "version: a text with half a surrogate pair", id="half-a-character"),
        pytest.param("user_activity", {}, "user_id: missing", id="no-user"),
        pytest.param("user_activity", {"user_id": None}, "user_id: missing", id="null-user"),
        pytest.param("user_activity", {"user_id": True}, "user_id: a boolean", id="user-is-a-boolean"),
        pytest.param("user_activity", {"user_id": 1.0}, "user_id: a number", id="user-is-a-fraction"),
        pytest.param("user_activity", {"user_id": 10**300}, "user_id: a text of 301 characters", id="endless-number"),
        pytest.param("user_activity", {"user_id": "u1", "entity": {}}, "entity: an object", id="join-key-is-an-object"),
        pytest.param("kb_updates", {"tags": []}, "none of tags, category and all", id="no-tags"),
        pytest.param("kb_updates", {"tags": "a"}, "tags: a text", id="tags-are-a-text"),
        pytest.param("kb_updates", {"tags": ["a", 2]}, "tags[1]: an integer", id="second-tag-is-a-number"),
        pytest.param("kb_updates", {"tags": [None]}, "tags[0]: null", id="null-tag"),
        pytest.param("kb_updates", {"tags": ["x" * 129]}, "tags[0]: a text of 129 characters, not a tag", id="tag-longer-than-any"),
        pytest.param("kb_updates", {"tags": ["a,b"]}, "tags[0]: a text of 3 characters, not a tag", id="tag-with-a-comma"),
        pytest.param("kb_updates", {"tags": [" a"]}, "tags[0]: a text of 2 characters, not a tag", id="tag-after-a-blank"),
        pytest.param("kb_updates", {"all": False, "tags": ["a"]}, "all: a boolean, not true", id="all-is-false"),
        pytest.param("kb_updates", {"all": 1}, "all: an integer, not true", id="all-is-one"),
        pytest.param("kb_updates", {"all": True, "tags": 5}, "tags: an integer", id="all-does-not-excuse-the-others"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(channel: str, payload: object, path: str) -> None:
    assert reason(channel, encoded(payload)).startswith(path)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        pytest.param(b"", "not valid JSON", id="empty"),
        pytest.param(b"{", "not valid JSON", id="cut-off"),
        pytest.param(b'{"version": "\xff"}', "not valid JSON in UTF-8", id="not-utf-8"),
        pytest.param('{"version": "v1"}'.encode("utf-16"), "not valid JSON in UTF-8", id="utf-16"),
        pytest.param(b'["version"]', "a list, not an object", id="list"),
        pytest.param(b"null", "null, not an object", id="null"),
        pytest.param(b'{"version": "v1", "version": "v2"}', "a field twice", id="field-twice"),
        pytest.param(b"[" * MAX_BYTES, "not valid JSON", id="endlessly-nested"),
        pytest.param(b'{"n": ' + b"9" * 60_000 + b"}", "not valid JSON", id="endless-digits"),
        pytest.param(b'{"version": "v1"}' + b" " * MAX_BYTES, "larger than 65536 bytes", id="too-large"),
    ],
)
def test_what_is_no_object_of_json_is_refused(payload: bytes, says: str) -> None:
    assert says in reason("model_updates", payload)


def test_the_largest_payload_is_still_read() -> None:
    payload = b'{"version": "v1"}'
    assert parse("model_updates", payload + b" " * (MAX_BYTES - len(payload))).flushes == requests([("version", "v1")])


def test_a_channel_that_nobody_knows_is_refused() -> None:
    assert "none of the channels" in reason("weather", b"{}")


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("field", ["model", "version", "adapter", "user_id", "entity", "tags", "category", "all"])
def test_a_reason_quotes_nothing_that_was_sent(channel: str, field: str) -> None:
    assert SECRET not in reason(channel, encoded({field: {SECRET: SECRET}, SECRET: [SECRET]}))


NAMES = st.sampled_from(["model", "version", "adapter", "user_id", "entity", "tags", "category", "all"]) | st.text(max_size=5)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.just("\ud800")
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8)


@given(channel=st.sampled_from(CHANNELS) | st.text(max_size=20), payload=st.binary(max_size=200))
def test_any_bytes_become_an_event_or_a_reason(channel: str, payload: bytes) -> None:
    event_or_reason(channel, payload)


@given(channel=st.sampled_from(CHANNELS), fields=st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_object_becomes_an_event_or_a_reason(channel: str, fields: dict[str, object]) -> None:
    event = event_or_reason(channel, encoded(fields))
    if event is not None:
        assert event.channel == channel
        assert event.flushes
        for request in event.flushes:
            assert request.value.encode() or request.target == "all"
            assert not request.dry_run


def encoded(payload: object) -> bytes:
    return json.dumps(payload).encode()


def requests(flushes: list[tuple[Any, str]]) -> tuple[FlushRequest, ...]:
    return tuple(FlushRequest(target, value) for target, value in flushes)


def reason(channel: str, payload: bytes) -> str:
    with pytest.raises(BadEvent) as caught:
        parse(channel, payload)
    return caught.value.reason


def event_or_reason(channel: str, payload: bytes) -> Event | None:
    try:
        return parse(channel, payload)
    except BadEvent:
        return None
