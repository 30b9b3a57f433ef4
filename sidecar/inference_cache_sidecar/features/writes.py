"""Which entities a write to the feature server changes: Feast's `POST /push` and `/write-to-online-store`, and materialisation. Pure."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import orjson

from inference_cache_sidecar.features.request import Value

ROW_WRITES: Final = ("/push", "/write-to-online-store")
BULK_WRITES: Final = ("/materialize", "/materialize-incremental")
MOST_ENTITIES: Final = 64
"""More are dropped together with everything else: that costs the store less."""


def may_change(path: str) -> bool:
    """A POST there."""
    return path in (*ROW_WRITES, *BULK_WRITES)


def entities_of(path: str, body: bytes, join_keys: Collection[str]) -> list[tuple[str, Value]] | None:
    """Join keys with the values that were written; None if they cannot be told, or are too many.

    Without `join_keys` every column of texts or whole numbers counts as one: to drop what nobody asks for costs little, and a row's
    own join keys are always among them.
    """
    frame = _frame(body) if path in ROW_WRITES else None
    if frame is None:
        return None
    named = [name for name in frame if name in join_keys] if join_keys else list(frame)
    entities = _values(frame, named, strict=bool(join_keys))
    return list(entities) if entities and len(entities) <= MOST_ENTITIES else None


def _values(frame: Mapping[str, list[object]], names: Iterable[str], *, strict: bool) -> dict[tuple[str, Value], None] | None:
    """In order, each once. `strict`: None where a value is neither text nor whole number."""
    found: dict[tuple[str, Value], None] = {}
    for name in names:
        for raw in frame[name]:
            value = _value(raw)
            if value is not None:
                found[name, value] = None
            elif strict:
                return None
    return found


def _value(raw: object) -> Value | None:
    if isinstance(raw, float) and raw.is_integer():
        return int(raw)
    return raw if isinstance(raw, str | int) and not isinstance(raw, bool) else None


def _frame(body: bytes) -> dict[str, list[object]] | None:
    """The written rows, column by column."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    frame = fields.get("df") if isinstance(fields, dict) else None
    if not isinstance(frame, dict) or not all(isinstance(column, list) for column in frame.values()):
        return None
    return frame
