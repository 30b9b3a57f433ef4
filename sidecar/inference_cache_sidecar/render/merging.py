"""Putting deltas together: the generic rules by which a stream's pieces become one object.

Strings of known text fields are concatenated, other scalars replaced, objects merged, lists extended (by `index` where
their items have one); null never takes the place of a value. Fields unknown here follow the same rules.
"""

from typing import Any, Final

import orjson

TEXT: Final = frozenset(
    {"content", "reasoning", "reasoning_content", "refusal", "text", "arguments", "transcript", "thinking", "partial_json"}
)

_COMPACT_AT = 512
_MEMBER_BYTES = 8


class Pieces(list[str]):
    """A text in the making."""

    def add(self, piece: str) -> None:
        self.append(piece)
        # A short str costs fifteen times its text: join now and then.
        if len(self) >= _COMPACT_AT:
            self[:] = ["".join(self)]


class Indexed(dict[int, dict[str, Any]]):
    """List items in the making, by their index."""


def merge(target: dict[str, Any], delta: dict[str, Any]) -> int:
    """Merge `delta` into `target`; returns by about how many bytes of JSON `target` has grown."""
    grown = 0
    for key, value in delta.items():
        if value is None:
            if key not in target:
                target[key] = None
                grown += _MEMBER_BYTES + len(key)
        elif type(value) is str:
            grown += _merge_text(target, key, value)
        elif type(value) is list:
            grown += _merge_list(target, key, value)
        elif type(value) is dict:
            grown += _merge_object(target, key, value)
        else:
            grown += 0 if key in target else _MEMBER_BYTES + len(key)
            target[key] = value
    return grown


def _merge_text(target: dict[str, Any], key: str, value: str) -> int:
    held = target.get(key)
    if type(held) is Pieces:
        held.add(value)
        return len(value)
    target[key] = Pieces([value]) if key in TEXT else value
    return (0 if held is not None else len(key)) + len(value)


def _merge_list(target: dict[str, Any], key: str, items: list[Any]) -> int:
    held = target.get(key)
    if items and all(type(item) is dict and type(item.get("index")) is int for item in items):
        indexed = held if type(held) is Indexed else Indexed()
        target[key] = indexed
        return sum(merge(indexed.setdefault(item["index"], {}), item) for item in items)
    if type(held) is list:
        held.extend(items)
    elif type(held) is not Indexed:
        target[key] = list(items)
    return _MEMBER_BYTES + len(key) + (len(orjson.dumps(items)) if items else 0)


def _merge_object(target: dict[str, Any], key: str, value: dict[str, Any]) -> int:
    held = target.get(key)
    grown = 0
    if type(held) is not dict:
        held = target[key] = {}
        grown = _MEMBER_BYTES + len(key)
    return grown + merge(held, value)


def settled(value: Any) -> Any:
    """The finished value: texts joined, indexed items in order."""
    if type(value) is Pieces:
        return "".join(value)
    if type(value) is dict:
        return {key: settled(item) for key, item in value.items()}
    if type(value) is Indexed:
        return [settled(value[index]) for index in sorted(value)]
    return value
