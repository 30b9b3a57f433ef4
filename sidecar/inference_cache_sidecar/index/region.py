"""One large scope: which rows it has, and how to find the nearest of them without comparing all.

`ScopedIndex` makes one when a scope passes some hundred rows. New rows are scanned flat; past `flat_limit` a thread
groups them into a partition that the loop swaps in when it next comes by. Searching goes on meanwhile.
"""

import logging
from array import array
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from threading import Event

import numpy as np

from inference_cache_sidecar.index.building import StoppedError, Work, build, expected_bytes
from inference_cache_sidecar.index.chains import NONE, Chains
from inference_cache_sidecar.index.flat import Flat
from inference_cache_sidecar.index.partition import Partition
from inference_cache_sidecar.index.protocol import Neighbour, Vector
from inference_cache_sidecar.index.sketch import Sketcher
from inference_cache_sidecar.index.slab import Slab, digests, scopes
from inference_cache_sidecar.index.vectors import Bytes, distinct

_log = logging.getLogger(__name__)

_CANDIDATES = 256
"""Rows compared exactly for each part that is scanned."""
_FIXED_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Shared:
    """What all regions of an index use together."""

    slab: Slab
    sketcher: Sketcher
    links: "array[int]"
    places: "array[int]"
    """By row: its position in the tail of its region, if it is there."""
    executor: Executor
    flat_limit: int


class Region:
    def __init__(self, scope: bytes, shared: Shared) -> None:
        self._scope = scope
        self._shared = shared
        self._rows = Chains(shared.links, lambda row: hash(shared.slab.digest(row)))
        self._tail = Flat(shared.sketcher.width)
        self._frozen: tuple[Flat, ...] = ()
        self._partition: Partition | None = None
        self._gone = 0
        """Rows still listed in the frozen parts or the partition that left since."""
        self._building: Future[Partition] | None = None
        self._stopped = Event()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        parts = self._tail.nbytes + sum(flat.nbytes for flat in self._frozen) + self._rows.nbytes + _FIXED_BYTES
        return parts + (self._partition.nbytes if self._partition else 0) + self._reserve()

    @property
    def building(self) -> bool:
        return self._building is not None

    def find(self, digest: bytes) -> int:
        """The row of `digest`, or NONE."""
        row = self._rows.first(hash(digest))
        while row != NONE and self._shared.slab.digest(row) != digest:
            row = self._shared.links[row]
        return row

    def add(self, row: int, vector: Vector) -> None:
        """Take in a filled row of a digest that is not here yet."""
        self._rows.insert(hash(self._shared.slab.digest(row)), row)
        self._append(row, self._shared.sketcher.sketch(vector))
        self.advance()

    def take_in(self, rows: list[int], vectors: Vector) -> None:
        for row, sketch in zip(rows, self._shared.sketcher.sketches(vectors), strict=True):
            self._rows.insert(hash(self._shared.slab.digest(row)), row)
            self._append(row, sketch)

    def replaced(self, row: int, vector: Vector) -> None:
        """The row has another vector now."""
        sketch = self._shared.sketcher.sketch(vector)
        position = self._shared.places[row]
        if self._tail.holds(row, position):
            self._tail.replace(position, sketch)
        else:
            self._gone += 1
            self._append(row, sketch)
        self.advance()

    def remove(self, row: int) -> None:
        """Forget a row that is here; the caller frees it."""
        self._rows.remove(hash(self._shared.slab.digest(row)), row)
        position = self._shared.places[row]
        if self._tail.holds(row, position):
            self._shared.places[self._tail.remove(position)] = position
        else:
            self._gone += 1
        self.advance()

    def search(self, query: Vector, limit: int) -> list[Neighbour]:
        self.advance()
        gathered = self._gathered(query)
        similarities = self._shared.slab.similarities(gathered, query)
        best = np.argsort(-similarities, kind="stable")[:limit]
        return [
            Neighbour(digest, similarity) for digest, similarity in zip(digests(gathered[best]), similarities[best].tolist(), strict=True)
        ]

    def advance(self) -> None:
        """Swap in a partition that is ready; begin one that is due."""
        if self._building is not None and self._building.done():
            self._swap(self._building)
        if self._building is None and self._due():
            self._freeze()

    def stop(self) -> None:
        """The region is dropped or the index closes: a running build ends at its next batch."""
        self._stopped.set()

    def _append(self, row: int, sketch: Bytes) -> None:
        self._shared.places[row] = self._tail.add(row, sketch)

    def _gathered(self, query: Vector) -> Bytes:
        """Candidate rows that belong to this scope, each once."""
        sketch = self._shared.sketcher.sketch(query)
        found = [flat.nearest(sketch, _CANDIDATES) for flat in (self._tail, *self._frozen)]
        if self._partition is not None:
            found.append(self._partition.nearest(query, sketch, _CANDIDATES))
        gathered = self._shared.slab.gather(distinct(np.concatenate(found)))
        mine: Bytes = gathered[(scopes(gathered) == np.frombuffer(self._scope, dtype=np.uint8)).all(axis=1)]
        return mine

    def _reserve(self) -> int:
        """Room for the next build. Counted before it begins, so that nothing has to make way for it all at once."""
        listed = len(self._tail) + sum(len(flat) for flat in self._frozen) + (len(self._partition) if self._partition else 0)
        if listed < self._shared.flat_limit // 2:
            return 0
        return expected_bytes(listed, self._shared.sketcher.width, self._shared.slab.dimensions)

    def _due(self) -> bool:
        limit = self._shared.flat_limit
        if self._partition is None:
            return len(self._tail) >= limit
        listed = len(self._partition)
        return len(self._tail) >= max(limit // 2, listed // 8) or self._gone > max(limit // 2, listed // 4)

    def _freeze(self) -> None:
        self._frozen = (*self._frozen, self._tail)
        self._tail = Flat(self._shared.sketcher.width)
        work = Work(self._shared.slab.snapshot(), self._scope, self._partition, self._frozen, self._stopped)
        self._gone = 0
        self._building = self._shared.executor.submit(build, work)

    def _swap(self, built: "Future[Partition]") -> None:
        self._building = None
        error = built.exception()
        if error is None:
            self._partition, self._frozen = built.result(), ()
        elif not isinstance(error, StoppedError):
            _log.error("a vector partition could not be built, its rows are scanned flat", exc_info=error)
