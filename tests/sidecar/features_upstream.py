"""A feature server in this process that answers as Feast does, from values that hang on nothing but what is asked and what was changed."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VIEWS: Mapping[str, tuple[str, ...]] = {"users": ("user_id",), "items": ("item_id",), "visits": ("user_id", "item_id")}
"""Views with their join keys."""
JOIN_KEYS = ("user_id", "item_id")
WRITTEN = "2026-01-02T03:04:05Z"
NEVER = "1970-01-01T00:00:00Z"
ODD_VALUES: tuple[Any, ...] = ("NaN", None, 2**63 - 1, 12345678901234567890123, [0.1, 1e-17, 3], [], "“ö\u001e\\\n", True, {"a": [None]})


def body(features: Sequence[str], entities: Mapping[str, Sequence[Any]], **fields: Any) -> bytes:
    return json.dumps({"features": features, "entities": entities, **fields}).encode()


@dataclass
class FeatureUpstream:
    """`ask` is what the cache calls, `answer` what a client without a cache would get."""

    versions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often an entity, by join key and value as text, was changed."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    down: bool = False

    async def ask(self, request: bytes) -> bytes | None:
        self.asked.append(json.loads(request))
        return None if self.down else self.answer(request)

    def change(self, join_key: str, value: object) -> None:
        self.versions[join_key, str(value)] += 1

    def answer(self, request: bytes) -> bytes:
        asked = json.loads(request)
        entities, full = asked["entities"], asked.get("full_feature_names", False)
        rows = [dict(zip(entities, values, strict=True)) for values in zip(*entities.values(), strict=True)]
        columns = {key: [(row[key], "PRESENT", NEVER) for row in rows] for key in entities if key in JOIN_KEYS}
        # As Feast does, all features of a view beside each other, views in the order they are first named.
        references = sorted((reference.split(":") for reference in asked["features"]), key=lambda pair: _views(asked).index(pair[0]))
        for view, name in references:
            columns[f"{view}__{name}" if full else name] = [self._cell(view, name, row) for row in rows]
        results = [
            dict(zip(("values", "statuses", "event_timestamps"), zip(*cells, strict=True), strict=True)) for cells in columns.values()
        ]
        return json.dumps({"results": results, "metadata": {"feature_names": list(columns)}}).encode()

    def _cell(self, view: str, name: str, row: Mapping[str, Any]) -> tuple[Any, str, str]:
        keys = [(key, str(row[key])) for key in VIEWS[view]]
        version = sum(self.versions[key] for key in keys)
        seed = sum(map(ord, f"{view}{name}{keys}"))
        if seed % 5 == 0 and not version:
            return None, "NOT_FOUND", NEVER
        if seed % 3 == 0:
            return ODD_VALUES[(seed + version) % len(ODD_VALUES)], "PRESENT", WRITTEN
        return f"{view}:{name} of {keys} #{version}", "PRESENT", f"2026-01-02T03:04:{version % 60:02}Z"


def _views(asked: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(reference.partition(":")[0] for reference in asked["features"]))
