"""From what is missing to what is asked and stored: which rows and features upstream must be asked for, and what its answer adds. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from inference_cache_sidecar.features.cells import Cell
from inference_cache_sidecar.features.layout import Layout, Reading, Row, column_of, layout_of
from inference_cache_sidecar.features.request import Feature, FeatureRequest
from inference_cache_sidecar.features.response import PRESENT, FeatureAnswer

Parts = Sequence[bytes]
"""A whole row, as `merge` takes it."""


@dataclass(frozen=True, slots=True)
class Lack:
    """Every distinct row that misses something, and all features that any of them misses: one question to upstream."""

    rows: Sequence[int]
    features: tuple[Feature, ...]


def lack_of(request: FeatureRequest, rows: Sequence[Parts | Row]) -> Lack | None:
    lacking = [number for number, row in enumerate(rows) if isinstance(row, Row)]
    if not lacking:
        return None
    missing = frozenset[Feature]().union(*{row.missing for row in rows if isinstance(row, Row)})
    return Lack(lacking, tuple(feature for feature in request.features if feature in missing))


def is_everything(lack: Lack, request: FeatureRequest, rows: Sequence[Parts | Row]) -> bool:
    return len(lack.rows) == len(rows) and len(lack.features) == len(request.features)


def cells_found(request: FeatureRequest, places: Sequence[int], rows: Sequence[Parts | Row]) -> int:
    """Of all rows as they were asked for, equal ones too."""
    width = len(request.features)
    counts = [width - len(row.missing) if isinstance(row, Row) else width for row in rows]
    return sum(counts[place] for place in places)


@dataclass(frozen=True, slots=True)
class Fresh:
    """Cells as upstream just gave them."""

    layout: Layout
    rows: Mapping[int, tuple[Cell, ...]]
    """By distinct row: a cell for each column."""

    def of(self, row: int) -> dict[Feature | str, Cell]:
        return dict(zip(self.layout.sources, self.rows[row], strict=True))


def fresh_of(request: FeatureRequest, features: tuple[Feature, ...], rows: Sequence[int], answer: FeatureAnswer) -> Fresh | None:
    """What upstream said to these features; `rows` are the distinct rows its rows stand for. None if it answered something else."""
    layout = layout_of(replace(request, features=features), answer.names)
    if layout is None:
        return None
    columns = [list(map(Cell, *column)) for column in answer.columns]
    return Fresh(layout, dict(zip(rows, zip(*columns, strict=True), strict=True)))


def filled(reading: Reading, rows: Sequence[Parts | Row], fresh: Fresh) -> list[Parts] | None:
    """All rows whole; None if some still are not."""
    whole: list[Parts] = []
    for number, row in enumerate(rows):
        parts = row.with_cells(reading.layout, fresh.of(number)) if isinstance(row, Row) else row
        if parts is None:
            return None
        whole.append(parts)
    return whole


@dataclass(frozen=True, slots=True)
class Stored:
    """Cells of one row in one view, to be stored together."""

    row: int
    view: str
    cells: dict[str, Cell]
    complete: bool
    """No feature is without a value."""


def stored_of(fresh: Fresh, views: Sequence[str]) -> Iterator[Stored]:
    """Each with the join keys that upstream repeated."""
    for view in views:
        wanted = [(column_of(source), number) for number, source in enumerate(fresh.layout.sources) if _belongs(source, view)]
        features = [number for number, source in enumerate(fresh.layout.sources) if isinstance(source, Feature) and source.view == view]
        if features:
            for row, cells in fresh.rows.items():
                complete = all(cells[number].status == PRESENT for number in features)
                yield Stored(row, view, {column: cells[number] for column, number in wanted}, complete)


def _belongs(source: Feature | str, view: str) -> bool:
    return isinstance(source, str) or source.view == view
