"""Sketches of a region's newer rows, scanned whole."""

import faiss
import numpy as np

from inference_cache_sidecar.index.vectors import Bytes, Rows

_FIRST = 256


class Flat:
    """Rows and their sketches without gaps: the last one fills the place of one that goes."""

    def __init__(self, width: int) -> None:
        self.size = 0
        self._sketches = np.empty((_FIRST, width), dtype=np.uint8)
        self._rows = np.empty(_FIRST, dtype=np.uint32)

    def __len__(self) -> int:
        return self.size

    @property
    def nbytes(self) -> int:
        return int(self._sketches.nbytes + self._rows.nbytes)

    @property
    def sketches(self) -> Bytes:
        return self._sketches[: self.size]

    @property
    def rows(self) -> Rows:
        return self._rows[: self.size]

    def holds(self, row: int, position: int) -> bool:
        """Whether `row` is here, at a position that may be remembered from elsewhere."""
        return position < self.size and int(self._rows[position]) == row

    def add(self, row: int, sketch: Bytes) -> int:
        """Returns the position, which `remove` may change."""
        if self.size == len(self._rows):
            self._resize(self.size + max(self.size // 4, _FIRST))
        self._sketches[self.size] = sketch
        self._rows[self.size] = row
        self.size += 1
        return self.size - 1

    def remove(self, position: int) -> int:
        """Returns the row that now stands at `position`."""
        self.size -= 1
        self._sketches[position] = self._sketches[self.size]
        self._rows[position] = self._rows[self.size]
        moved = int(self._rows[position])
        if self.size < len(self._rows) // 4 and self.size >= _FIRST:
            self._resize(2 * self.size)
        return moved

    def replace(self, position: int, sketch: Bytes) -> None:
        self._sketches[position] = sketch

    def nearest(self, sketch: Bytes, limit: int) -> Rows:
        """The `limit` rows whose sketches differ least, in no order."""
        return self.rows[nearest(self.sketches, sketch, limit)]

    def _resize(self, places: int) -> None:
        sketches = np.empty((places, self._sketches.shape[1]), dtype=np.uint8)
        rows = np.empty(places, dtype=np.uint32)
        sketches[: self.size], rows[: self.size] = self.sketches, self.rows
        self._sketches, self._rows = sketches, rows


def nearest(sketches: Bytes, sketch: Bytes, limit: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Positions of the `limit` sketches that differ in the fewest bits."""
    if len(sketches) <= limit:
        return np.arange(len(sketches))
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = faiss.knn_hamming(sketch[None, :], sketches, limit, variant="mc")[1][0]
    # The counting variant leaves places empty where a distance is shared by more rows than fit.
    return found[found >= 0]
