"""Where a request's cells lie in the store and what they must be stamped with; and what was found there. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from inference_cache_contract.epochs import Stamp
from inference_cache_sidecar.features import cells
from inference_cache_sidecar.features.cells import Fields
from inference_cache_sidecar.features.entities import FeatureKeys, Rows, stamp_of_names, stamps_of
from inference_cache_sidecar.features.layout import Layout, layout_of
from inference_cache_sidecar.features.request import FeatureRequest


@dataclass(frozen=True, slots=True)
class Found:
    """What was kept of a request."""

    layout: Layout | None = None
    """None: upstream has not answered such a request lately."""
    kept: Sequence[Sequence[Fields | None]] = ()
    """By view, then by distinct row; empty where nothing was looked for."""
    store_is_there: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    request: FeatureRequest
    rows: Rows
    stamps: Sequence[bytes]
    """Of each distinct row."""
    names_key: bytes
    names_stamp: bytes
    views: Sequence[str]
    """Those that may be cached."""
    keys: Sequence[Sequence[bytes]]
    """By view, then by distinct row."""

    @property
    def all_keys(self) -> list[bytes]:
        return [self.names_key, *(key for keys in self.keys for key in keys)]

    @property
    def all_stamps(self) -> list[bytes]:
        """One for each of `all_keys`."""
        return [self.names_stamp, *(stamp for _ in self.keys for stamp in self.stamps)]

    def found(self, fields: Sequence[Fields | None], *, store_is_there: bool) -> Found:
        """`fields`: what lay under each of `all_keys`."""
        count, names = len(self.stamps), fields[0]
        kept = [fields[1 + number * count : 1 + (number + 1) * count] for number in range(len(self.keys))]
        return Found(None if names is None else layout_of(self.request, cells.names(names)), kept, store_is_there)


def place_of(request: FeatureRequest, tenant: bytes, rows: Rows, stamps: Sequence[Stamp], views: Sequence[str], keys: FeatureKeys) -> Place:
    of_views = [keys.rows(view, rows.digests) for view in views]
    return Place(request, rows, stamps_of(rows, stamps), keys.names(request, tenant), stamp_of_names(stamps), views, of_views)
