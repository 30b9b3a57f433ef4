"""Makes a region's next partition. Runs in the index's thread and only reads what it is given.

Every step works on a batch small enough to take few milliseconds, since NumPy may hold the interpreter for it while
the event loop waits.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event

import numpy as np
import numpy.typing as npt

from inference_cache_sidecar.index.flat import Flat
from inference_cache_sidecar.index.partition import Partition
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.index.slab import Slab, scopes
from inference_cache_sidecar.index.vectors import Bytes, Rows

_BATCH = 512
_TRAINING_ROWS_PER_GROUP = 40
_RETRAIN_GROWTH = 4
_MAX_GROUPS = 4096
_LISTING_BYTES = 32
"""A row in the arrays that sort rows into groups."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a partition is made from: the old one, if any, and the rows since."""

    slab: Slab
    scope: bytes
    old: Partition | None
    newer: tuple[Flat, ...]
    """Frozen: nothing is added to them any more."""
    stopped: Event


@dataclass(frozen=True, slots=True)
class _Listed:
    """All rows of the work, the old partition's first, and where each one's sketch is."""

    rows: Rows
    sketches: tuple[Bytes, ...]
    starts: npt.NDArray[np.int64]


class StoppedError(Exception):
    """The index is closing, or the region has gone: nobody wants the partition any more."""


def groups_for(rows: int) -> int:
    return max(8, min(_MAX_GROUPS, 2 * math.isqrt(rows)))


def expected_bytes(rows: int, width: int, dimensions: int) -> int:
    """What a build over this many rows takes at most, its working memory included."""
    groups = groups_for(rows)
    return rows * (width + _LISTING_BYTES) + groups * (dimensions * 4 + 16) + _BATCH * (dimensions * 9 + groups * 4)


def build(work: Work) -> Partition:
    """Rows that no longer belong to the scope are left out. Raises StoppedError."""
    listed = _listed(work)
    wanted = groups_for(len(listed.rows))
    if work.old is None or wanted > _RETRAIN_GROWTH // 2 * len(work.old.centroids):
        centroids = _train(work, listed.rows, wanted)
        groups = _assigned(work, listed.rows, centroids)
    else:
        centroids = work.old.centroids
        groups = np.concatenate([_still_assigned(work, work.old), _assigned(work, listed.rows[len(work.old) :], centroids)])
    _drop_superseded(work, listed, groups)
    return _sorted(listed, centroids, groups)


def _listed(work: Work) -> _Listed:
    sources = [*((work.old,) if work.old else ()), *work.newer]
    starts = np.cumsum([0, *(len(source) for source in sources)])
    return _Listed(np.concatenate([source.rows for source in sources]), tuple(source.sketches for source in sources), starts)


def _drop_superseded(work: Work, listed: _Listed, groups: npt.NDArray[np.int32]) -> None:
    """A row that was freed and used again is listed twice: its older place has another vector's sketch."""
    places = np.arange(len(listed.rows), dtype=np.uint32)
    last = np.zeros(int(listed.rows.max(initial=0)) + 1, dtype=np.uint32)
    last[listed.rows] = places
    groups[last[listed.rows] != places] = -1


def _batches(work: Work, rows: Rows) -> Iterator[tuple[slice, Bytes]]:
    for start in range(0, len(rows), _BATCH):
        if work.stopped.is_set():
            raise StoppedError
        span = slice(start, start + _BATCH)
        yield span, work.slab.gather(rows[span])


def _belonging(work: Work, gathered: Bytes) -> npt.NDArray[np.bool_]:
    mine: npt.NDArray[np.bool_] = (scopes(gathered) == np.frombuffer(work.scope, dtype=np.uint8)).all(axis=1)
    return mine


def _train(work: Work, rows: Rows, groups: int) -> Vector:
    """Spherical k-means in small batches (Sculley, WWW 2010): its memory does not grow with the region."""
    generator = np.random.default_rng(groups)
    picked = rows[generator.integers(0, len(rows), size=groups * _TRAINING_ROWS_PER_GROUP)]
    first = work.slab.vectors(work.slab.gather(picked[:groups]))
    sums = _normalised(first + generator.normal(scale=1e-3, size=first.shape).astype(np.float32))
    centroids = sums.copy()
    for _, gathered in _batches(work, picked):
        vectors = work.slab.vectors(gathered)
        nearest = np.argmax(vectors @ centroids.T, axis=1)
        order = np.argsort(nearest, kind="stable")
        touched, starts = np.unique(nearest[order], return_index=True)
        sums[touched] += np.add.reduceat(vectors[order], starts, axis=0)
        centroids[touched] = _normalised(sums[touched])
    return centroids


def _normalised(vectors: Vector) -> Vector:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    scaled: Vector = vectors / np.maximum(lengths, np.float32(1e-12))
    return scaled


def _assigned(work: Work, rows: Rows, centroids: Vector) -> npt.NDArray[np.int32]:
    """The nearest centroid of each row; -1 for rows that have gone."""
    groups = np.full(len(rows), -1, dtype=np.int32)
    for span, gathered in _batches(work, rows):
        nearest = np.argmax(work.slab.vectors(gathered) @ centroids.T, axis=1)
        groups[span] = np.where(_belonging(work, gathered), nearest, -1)
    return groups


def _still_assigned(work: Work, old: Partition) -> npt.NDArray[np.int32]:
    """As `_assigned`, for rows whose group is known."""
    groups = np.repeat(np.arange(len(old.centroids), dtype=np.int32), np.diff(old.bounds))
    for span, gathered in _batches(work, old.rows):
        groups[span][~_belonging(work, gathered)] = -1
    return groups


def _sorted(listed: _Listed, centroids: Vector, groups: npt.NDArray[np.int32]) -> Partition:
    kept = np.flatnonzero(groups >= 0)
    order = kept[np.argsort(groups[kept], kind="stable")]
    bounds = np.searchsorted(groups[order], np.arange(len(centroids) + 1))
    sketches = np.empty((len(order), listed.sketches[0].shape[1]), dtype=np.uint8)
    for start in range(0, len(order), 16 * _BATCH):
        span = slice(start, start + 16 * _BATCH)
        sketches[span] = _sketches_at(listed, order[span])
    return Partition(centroids, bounds, listed.rows[order], sketches)


def _sketches_at(listed: _Listed, places: npt.NDArray[np.int64]) -> Bytes:
    found = np.empty((len(places), listed.sketches[0].shape[1]), dtype=np.uint8)
    source = np.searchsorted(listed.starts, places, side="right") - 1
    for number, sketches in enumerate(listed.sketches):
        mine = source == number
        found[mine] = sketches[places[mine] - listed.starts[number]]
    return found
