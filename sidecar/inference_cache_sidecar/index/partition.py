"""Sketches of a large region, grouped by the nearest of some hundred centroids: a search scans a few groups only.

An inverted file (Jégou, Douze, Schmid, PAMI 2011) over sketches. Made by `building.build` in a thread, never changed
after; rows that have gone since are still listed, and the region finds them out when it compares exactly.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference_cache_sidecar.index.flat import nearest
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.index.vectors import Bytes, Rows

PROBES = 64
"""Groups scanned by a search; `bench/store_memory.py` prints the share of nearest vectors that this finds."""


@dataclass(frozen=True, slots=True)
class Partition:
    centroids: npt.NDArray[np.float32]
    """(groups, dimensions), unit rows."""
    bounds: npt.NDArray[np.int64]
    """Group g is rows[bounds[g]:bounds[g + 1]]."""
    rows: Rows
    sketches: Bytes

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        return int(self.centroids.nbytes + self.bounds.nbytes + self.rows.nbytes + self.sketches.nbytes)

    def nearest(self, query: Vector, sketch: Bytes, limit: int) -> Rows:
        """About the `limit` rows whose sketches differ least, in no order."""
        closeness = self.centroids @ query
        probes = min(PROBES, len(closeness))
        groups = np.argpartition(closeness, len(closeness) - probes)[-probes:]
        spans = [slice(*self.bounds[group : group + 2].tolist()) for group in groups.tolist()]
        sketches = np.concatenate([self.sketches[span] for span in spans])
        rows = np.concatenate([self.rows[span] for span in spans])
        return rows[nearest(sketches, sketch, limit)]
