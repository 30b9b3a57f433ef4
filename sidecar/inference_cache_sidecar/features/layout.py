"""An answer's rows out of what the store had: which cell stands where, and which are missing. Pure.

Rows that were stored with the same columns are read by the same plan, made once: a row then costs one call, not one for each cell.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from inference_cache_sidecar.features.cells import Cell, Fields, Spot, header, spots
from inference_cache_sidecar.features.request import Feature, FeatureRequest


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of the answer to a request, as upstream names and orders them."""

    names: tuple[str, ...]
    sources: tuple[Feature | str, ...]
    """Of each column: a feature, or the join key it repeats."""

    @property
    def features(self) -> tuple[Feature, ...]:
        return tuple(source for source in self.sources if isinstance(source, Feature))


def layout_of(request: FeatureRequest, names: Iterable[str]) -> Layout | None:
    """None where the columns are not the request's features, each once, and join keys of its entities."""
    features = {feature.column: feature for feature in request.features}
    names = tuple(names)
    sources = tuple(features.get(name, name) for name in names)
    keys = [source for source in sources if isinstance(source, str)]
    if len(set(names)) != len(names) or len(names) - len(keys) != len(features) or not request.entities.keys() >= set(keys):
        return None
    return Layout(names, sources)


def column_of(source: Feature | str) -> str:
    """As the store names it, in the cells of one view."""
    return f"k:{source}" if isinstance(source, str) else f"f:{source.name}"


@dataclass(slots=True)
class Row:
    """A row that lacks something; `parts` are those of `merge`, None where they are missing."""

    parts: list[bytes | None]
    missing: frozenset[Feature]

    def with_cells(self, layout: Layout, fresh: Mapping[Feature | str, Cell]) -> list[bytes] | None:
        """The row with `fresh` cells in their places; None if something is still missing."""
        width, parts = len(layout.names), list(self.parts)
        for number, source in enumerate(layout.sources):
            cell = fresh.get(source)
            if cell is not None:
                parts[number], parts[number + width], parts[number + 2 * width] = cell.value, cell.moment, cell.status
        whole = [part for part in parts if part is not None]
        return whole if len(whole) == len(parts) else None


@dataclass(slots=True)
class Reading:
    """Reads the rows of one request; `views` says in which order a row's fields are given."""

    layout: Layout
    views: Sequence[str]
    _plans: dict[Hashable, "_Whole | _Partial"] = field(default_factory=dict)
    """By the headers of a row's fields."""

    def rows(self, kept: Sequence[Sequence[Fields | None]]) -> list[Sequence[bytes] | Row]:
        """Each as `merge` takes it where all parts are there; `kept` has, for each view, the fields of each row."""
        if len(kept) == 1:
            return [self._row(fields or [], header(fields) if fields else None, (fields,)) for fields in kept[0]]
        heads = zip(*([header(fields) if fields else None for fields in of_view] for of_view in kept), strict=True)
        return [self._row(_joined(fields), head, fields) for head, *fields in zip(heads, *kept, strict=True)]

    def _row(self, joined: Fields, headers: Hashable, fields: Sequence[Fields | None]) -> Sequence[bytes] | Row:
        plan = self._plans.get(headers)
        if plan is None:
            plan = self._plans[headers] = self._plan(fields)
        if isinstance(plan, _Whole):
            return plan.pick(joined) + plan.statuses
        return Row([*(None if at is None else joined[at] for at in plan.places), *plan.statuses], plan.missing)

    def _plan(self, kept: Sequence[Fields | None]) -> "_Whole | _Partial":
        begin, found = 0, []
        for fields in kept:
            of_view = {} if fields is None else spots(fields)
            found.append({column: Spot(at.value + begin, at.status, at.moment + begin) for column, at in of_view.items()})
            begin += len(fields or ())
        chosen = [self._spot(source, found) for source in self.layout.sources]
        there = [spot for spot in chosen if spot is not None]
        if len(there) == len(chosen):
            pick = itemgetter(*(spot.value for spot in there), *(spot.moment for spot in there))
            return _Whole(pick, tuple(spot.status for spot in there))
        places = [*(spot and spot.value for spot in chosen), *(spot and spot.moment for spot in chosen)]
        pairs = zip(self.layout.sources, chosen, strict=True)
        missing = frozenset(source for source, spot in pairs if spot is None and isinstance(source, Feature))
        # With only a join key missing, any question brings it; one for all features is as good as any.
        return _Partial(places, [spot and spot.status for spot in chosen], missing or frozenset(self.layout.features))

    def _spot(self, source: Feature | str, found: Sequence[Mapping[str, Spot]]) -> Spot | None:
        column = column_of(source)
        if isinstance(source, str):
            return next((spots[column] for spots in found if column in spots), None)
        return found[self.views.index(source.view)].get(column) if source.view in self.views else None


@dataclass(frozen=True, slots=True)
class _Whole:
    """Nothing is missing."""

    pick: Callable[[Fields], tuple[bytes, ...]]
    """Of all columns the values, then the event timestamps, in one call."""
    statuses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Partial:
    places: Sequence[int | None]
    """As `_Whole.pick` takes them."""
    statuses: Sequence[bytes | None]
    missing: frozenset[Feature]


def _joined(fields: Iterable[Fields | None]) -> Fields:
    return [part for each in fields if each is not None for part in each]
