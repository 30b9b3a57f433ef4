"""The vector index of one sidecar: vectors searched inside one scope, most scopes holding a handful.

The memory store owns it and calls it from the event loop's thread only. No call takes more than a few milliseconds at
any size; what takes longer runs in the index's own thread, which `close` ends.
"""

import asyncio
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from sys import getsizeof

import faiss
import numpy as np

from inference_cache_sidecar.index.chains import NONE, Chains
from inference_cache_sidecar.index.protocol import Neighbour, Vector
from inference_cache_sidecar.index.region import Region, Shared
from inference_cache_sidecar.index.sketch import Sketcher
from inference_cache_sidecar.index.slab import KEY_BYTES, Slab, digests
from inference_cache_sidecar.index.vectors import SCALE, unit

REGION_ROWS = 256
"""A scope with as many rows gets a region of its own; below, its rows are compared one by one."""
FLAT_LIMIT = 32_768
"""Newer rows of a region that are scanned whole."""
_FIXED_BYTES = 4096
_REGION_ENTRY_BYTES = 256


class ScopedIndex:
    """Implements `VectorIndex`. Vectors are kept as int8 with a scale of their own: similarities are right within about 1e-3."""

    def __init__(self, dimensions: int, *, region_rows: int = REGION_ROWS, flat_limit: int = FLAT_LIMIT) -> None:
        # The loop and the building thread share two cores with the server beside them.
        faiss.omp_set_num_threads(1)
        self.dimensions = dimensions
        self._region_rows = region_rows
        self._slab = Slab(dimensions)
        self._links = array("I")
        self._executor = ThreadPoolExecutor(1, "index", initializer=partial(faiss.omp_set_num_threads, 1))
        self._shared = Shared(self._slab, Sketcher(dimensions), self._links, array("I"), self._executor, flat_limit)
        self._small = Chains(self._links, lambda row: hash(self._slab.scope(row)))
        self._regions: dict[bytes, Region] = {}
        self._region_bytes = 0

    def __len__(self) -> int:
        return len(self._slab)

    @property
    def nbytes(self) -> int:
        by_row = self._slab.nbytes + getsizeof(self._links) + getsizeof(self._shared.places) + self._small.nbytes
        return by_row + self._region_bytes + self._shared.sketcher.nbytes + _FIXED_BYTES

    @property
    def vector_bytes(self) -> int:
        return self.dimensions + SCALE.size

    @property
    def building(self) -> bool:
        """Whether a partition is being made; it is swapped in by the next call for its scope."""
        return any(region.building for region in self._regions.values())

    def add(self, scope: bytes, digest: bytes, vector: Vector) -> None:
        """Keep the vector of `digest`, replacing an earlier one. Raises ValueError if it, or a key, does not fit."""
        if len(scope) != KEY_BYTES or len(digest) != KEY_BYTES:
            raise ValueError(f"scope and digest are {KEY_BYTES} bytes each")
        checked = unit(vector, self.dimensions)
        region = self._regions.get(scope)
        if region is None:
            self._add_small(scope, digest, checked)
        else:
            self._add_to_region(region, scope, digest, checked)

    def add_all(self, added: Sequence[tuple[bytes, bytes, Vector]]) -> None:
        """As `add` for each (scope, digest, vector); what many of one large scope share is computed once."""
        by_scope: dict[bytes, dict[bytes, Vector]] = {}
        for scope, digest, vector in added:
            by_scope.setdefault(scope, {})[digest] = vector
        for scope, vectors in by_scope.items():
            region = self._regions.get(scope)
            fresh = [digest for digest in vectors if region is not None and region.find(digest) == NONE]
            for digest in vectors.keys() - fresh:
                self.add(scope, digest, vectors[digest])
            if region is not None and fresh:
                self._add_fresh(region, scope, {digest: unit(vectors[digest], self.dimensions) for digest in fresh})

    def remove(self, scope: bytes, digest: bytes) -> bool:
        region = self._regions.get(scope)
        row = region.find(digest) if region else self._find_small(scope, digest)
        if row == NONE:
            return False
        if region:
            self._remove_from_region(region, scope, row)
        else:
            self._small.remove(hash(scope), row)
        self._slab.release(row)
        return True

    def search(self, scope: bytes, vector: Vector, limit: int) -> list[Neighbour]:
        """Nearest first, only of `scope`. Raises ValueError if the vector does not fit."""
        query = unit(vector, self.dimensions)
        region = self._regions.get(scope)
        if limit <= 0:
            return []
        if region is None:
            return self._search_small(scope, query, limit)
        before = region.nbytes
        found = region.search(query, limit)
        self._region_bytes += region.nbytes - before
        return found

    async def close(self) -> None:
        """End the thread; a build it is at is given up."""
        for region in self._regions.values():
            region.stop()
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    def _rows_of(self, scope: bytes) -> list[int]:
        rows = []
        row = self._small.first(hash(scope))
        while row != NONE:
            if self._slab.scope(row) == scope:
                rows.append(row)
            row = self._links[row]
        return rows

    def _find_small(self, scope: bytes, digest: bytes) -> int:
        return next((row for row in self._rows_of(scope) if self._slab.digest(row) == digest), NONE)

    def _filled_row(self, scope: bytes, digest: bytes, vector: Vector) -> int:
        row = self._slab.take(scope, digest, vector)
        if row == len(self._links):
            self._links.append(NONE)
            self._shared.places.append(NONE)
        return row

    def _add_small(self, scope: bytes, digest: bytes, vector: Vector) -> None:
        rows = self._rows_of(scope)
        known = next((row for row in rows if self._slab.digest(row) == digest), NONE)
        if known != NONE:
            self._slab.replace(known, vector)
            return
        row = self._filled_row(scope, digest, vector)
        self._small.insert(hash(scope), row)
        if len(rows) + 1 >= self._region_rows:
            self._promote(scope, [row, *rows])

    def _promote(self, scope: bytes, rows: list[int]) -> None:
        region = Region(scope, self._shared)
        for row in rows:
            self._small.remove(hash(scope), row)
        gathered = self._slab.gather(np.array(rows, dtype=np.uint32))
        region.take_in(rows, self._slab.vectors(gathered))
        self._regions[scope] = region
        self._region_bytes += region.nbytes + _REGION_ENTRY_BYTES

    def _add_to_region(self, region: Region, scope: bytes, digest: bytes, vector: Vector) -> None:
        before = region.nbytes
        row = region.find(digest)
        if row == NONE:
            region.add(self._filled_row(scope, digest, vector), vector)
        else:
            self._slab.replace(row, vector)
            region.replaced(row, vector)
        self._region_bytes += region.nbytes - before

    def _add_fresh(self, region: Region, scope: bytes, vectors: dict[bytes, Vector]) -> None:
        before = region.nbytes
        rows = [self._filled_row(scope, digest, vector) for digest, vector in vectors.items()]
        region.take_in(rows, np.stack(list(vectors.values())))
        region.advance()
        self._region_bytes += region.nbytes - before

    def _remove_from_region(self, region: Region, scope: bytes, row: int) -> None:
        before = region.nbytes
        region.remove(row)
        if len(region):
            self._region_bytes += region.nbytes - before
            return
        region.stop()
        del self._regions[scope]
        self._region_bytes -= before + _REGION_ENTRY_BYTES

    def _search_small(self, scope: bytes, query: Vector, limit: int) -> list[Neighbour]:
        rows = self._rows_of(scope)
        if not rows:
            return []
        gathered = self._slab.gather(np.array(rows, dtype=np.uint32))
        similarities = self._slab.similarities(gathered, query)
        best = np.argsort(-similarities, kind="stable")[:limit]
        return [Neighbour(*found) for found in zip(digests(gathered[best]), similarities[best].tolist(), strict=True)]
