"""Feast's question for online features, `POST /get-online-features`, as rows and features. Pure.

What is not wholly understood is no `FeatureRequest`: a feature service, request context, a field that is new, entities that are
neither texts nor whole numbers, names that would clash in the answer. Such requests pass through.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

import orjson

Value = str | int
"""Of an entity's join key."""
MAX_ROWS: Final = 2000
"""More rows, or rows times views, pass through: taking them apart would hold up everybody else."""
_FIELDS: Final = {"features", "entities", "full_feature_names"}


@dataclass(frozen=True, slots=True)
class Feature:
    view: str
    name: str
    column: str
    """What the answer calls it."""

    @property
    def reference(self) -> str:
        return f"{self.view}:{self.name}"


@dataclass(frozen=True, slots=True)
class FeatureRequest:
    body: bytes
    """As the client sent it."""
    features: tuple[Feature, ...]
    """Of different `column`s."""
    entities: Mapping[str, Sequence[Value]]
    """By join key, in the order written; all of `count` values, of one type each."""
    count: int
    """Rows; at least one."""
    full_names: bool

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(feature.view for feature in self.features))

    def narrowed(self, features: Iterable[Feature], rows: Sequence[int]) -> bytes:
        """The request's body for some of its features and rows only."""
        return orjson.dumps(
            {
                "features": [feature.reference for feature in features],
                "entities": {name: [values[row] for row in rows] for name, values in self.entities.items()},
                "full_feature_names": self.full_names,
            }
        )


def parse(body: bytes) -> FeatureRequest | None:
    """None for what must pass through unchanged."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(fields) is not dict or not fields.keys() <= _FIELDS:
        return None
    full_names = fields.get("full_feature_names", False)
    entities = fields.get("entities")
    features = _features(fields.get("features"), full_names)
    if type(full_names) is not bool or features is None or not _are_columns(entities):
        return None
    request = FeatureRequest(body, features, entities, len(next(iter(entities.values()))), full_names)
    return request if request.count * len(request.views) <= MAX_ROWS and _can_tell_columns(request) else None


def _features(references: object, full_names: bool) -> tuple[Feature, ...] | None:
    if type(references) is not list or not references:
        return None
    features = tuple(_feature(reference, full_names) for reference in references)
    return None if None in features else features  # type: ignore[return-value]  # none of them is


def _feature(reference: object, full_names: bool) -> Feature | None:
    if type(reference) is not str:
        return None
    view, _, name = reference.partition(":")
    return Feature(view, name, f"{view}__{name}" if full_names else name) if view and name else None


def _are_columns(entities: object) -> TypeGuard[dict[str, list[Value]]]:
    if type(entities) is not dict or not entities:
        return False
    values = list(entities.values())
    return all(type(column) is list and len(column) == len(values[0]) > 0 and _is_of_one_type(column) for column in values)


def _is_of_one_type(column: list[object]) -> bool:
    """The feature server reads a whole column by one type: rows of another kind beside it could change what it makes of a value."""
    kinds = set(map(type, column))
    return kinds in ({str}, {int})


def _can_tell_columns(request: FeatureRequest) -> bool:
    columns = {feature.column for feature in request.features}
    return len(columns) == len(request.features) and not columns & request.entities.keys()
