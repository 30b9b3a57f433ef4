"""What an event says: JSON objects of at most 64 KiB on three channels. Pure; `handling` acts on the result.

    model_updates   {"version": "v1.2.3"} or {"adapter": "name"} or both; "model" is checked and not used
    user_activity   {"user_id": "u1"} or {"user_id": 1}; "entity" is the join key of features, unless it is user_id.
                    An id that is too long or too odd for the tag user:<id> concerns features alone: no answer can carry that tag
    kb_updates      one or more of {"tags": ["a", "b"], "category": "pricing", "all": true}

Other fields are ignored, since producers grow, and null counts as absent, since many write it. A reason never quotes a value.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from inference_cache_contract.errors import shown
from inference_cache_sidecar.flush import FlushRequest
from inference_cache_sidecar.marks import MAX_TAG_LENGTH, is_tag

MODEL_UPDATES: Final = "model_updates"
USER_ACTIVITY: Final = "user_activity"
KB_UPDATES: Final = "kb_updates"
CHANNELS: Final = (MODEL_UPDATES, USER_ACTIVITY, KB_UPDATES)
MAX_BYTES: Final = 64 * 1024
MAX_NAME: Final = 256
DEFAULT_JOIN_KEY: Final = "user_id"
_NAME: Final = f"a text of 1 to {MAX_NAME} characters"
_TAG: Final = f"a tag: 1 to {MAX_TAG_LENGTH} characters without commas, and without blanks around them"
_KINDS: Final = {bool: "a boolean", int: "an integer", float: "a number", str: "a text", list: "a list", dict: "an object"}


class BadEvent(Exception):
    """An event that no retry makes better; `reason` names the field, and quotes nothing that the producer wrote."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Entity:
    """Whose features are out of date: the value of a join key, as text even where the producer wrote a number."""

    join_key: str
    value: str


@dataclass(frozen=True, slots=True)
class Event:
    """Doing all of it twice, or in another order, changes nothing."""

    channel: str
    flushes: tuple[FlushRequest, ...]
    entities: tuple[Entity, ...] = ()


def parse(channel: str, payload: bytes) -> Event:
    """Raises BadEvent, and nothing else."""
    read = _READERS.get(channel)
    if read is None:
        raise BadEvent(f"{shown(channel)} is none of the channels {', '.join(CHANNELS)}")
    return read(_object(payload))


def _model_updates(fields: Mapping[str, Any]) -> Event:
    _name(fields, "model")
    version, adapter = _name(fields, "version"), _name(fields, "adapter")
    flushes = [FlushRequest("version", version)] if version is not None else []
    if adapter is not None:
        flushes.append(FlushRequest("adapter", adapter))
    return _flushing(MODEL_UPDATES, flushes, "version and adapter")


def _user_activity(fields: Mapping[str, Any]) -> Event:
    user = _identifier(fields, "user_id")
    join_key = _name(fields, "entity")
    entity = Entity(DEFAULT_JOIN_KEY if join_key is None else join_key, user)
    tag = f"user:{user}"
    return Event(USER_ACTIVITY, (FlushRequest("tag", tag),) if is_tag(tag) else (), (entity,))


def _kb_updates(fields: Mapping[str, Any]) -> Event:
    tags, category, everything = _tags(fields), _name(fields, "category"), fields.get("all")
    if everything is not None and everything is not True:
        raise BadEvent(f"all: {_kind(everything)}, not true")
    if everything:
        return Event(KB_UPDATES, (FlushRequest("all"),))
    flushes = [FlushRequest("tag", tag) for tag in tags]
    if category is not None:
        flushes.append(FlushRequest("category", category))
    return _flushing(KB_UPDATES, flushes, "tags, category and all")


_READERS: Final[dict[str, Callable[[Mapping[str, Any]], Event]]] = {
    MODEL_UPDATES: _model_updates,
    USER_ACTIVITY: _user_activity,
    KB_UPDATES: _kb_updates,
}


def _flushing(channel: str, flushes: list[FlushRequest], names: str) -> Event:
    if not flushes:
        raise BadEvent(f"none of {names} says what to flush")
    return Event(channel, tuple(flushes))


def _object(payload: bytes) -> Mapping[str, Any]:
    if len(payload) > MAX_BYTES:
        raise BadEvent(f"the payload is larger than {MAX_BYTES} bytes")
    try:
        fields = json.loads(payload.decode(), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):
        raise BadEvent("the payload is not valid JSON in UTF-8") from None
    if not isinstance(fields, dict):
        raise BadEvent(f"the payload is {_kind(fields)}, not an object")
    return fields


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadEvent("an object has a field twice")
    return fields


def _tags(fields: Mapping[str, Any]) -> list[str]:
    """Without repetitions, in the order given."""
    tags = fields.get("tags")
    if tags is None:
        return []
    if not isinstance(tags, list):
        raise BadEvent(f"tags: {_kind(tags)}, not a list of texts")
    return list(dict.fromkeys(_tag(tag, f"tags[{number}]") for number, tag in enumerate(tags)))


def _tag(value: object, path: str) -> str:
    tag = _checked(value, path, _TAG)
    if not is_tag(tag):
        raise BadEvent(f"{path}: {_kind(tag)}, not {_TAG}")
    return tag


def _name(fields: Mapping[str, Any], field: str) -> str | None:
    """None where it is absent."""
    value = fields.get(field)
    return None if value is None else _checked(value, field)


def _identifier(fields: Mapping[str, Any], field: str) -> str:
    value = fields.get(field)
    if value is None:
        raise BadEvent(f"{field}: missing")
    return _checked(str(value) if type(value) is int else value, field, f"{_NAME}, nor an integer of as many digits")


def _checked(value: object, path: str, wanted: str = _NAME) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not _is_unicode(value):
        raise BadEvent(f"{path}: {_kind(value)}, not {wanted}")
    return value


def _is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can escape and UTF-8 cannot hold."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def _kind(value: object) -> str:
    if isinstance(value, str):
        return f"a text of {len(value)} characters" if _is_unicode(value) else "a text with half a surrogate pair"
    return _KINDS.get(type(value), "null")
