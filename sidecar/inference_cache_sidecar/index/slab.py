"""The rows of all vectors of an index, whatever their scope: the one place where vectors are kept.

`ScopedIndex` owns it; regions and partitions hold row numbers only and read the truth here.
"""

import copy
import mmap
from array import array
from sys import getsizeof

import numpy as np

from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.index.vectors import SCALE, Bytes, Rows, distinct, quantised

KEY_BYTES = 32
_CHUNK_SHIFT = 16
_CHUNK_ROWS = 1 << _CHUNK_SHIFT
_DIGEST_AT = KEY_BYTES
_SCALE_AT = 2 * KEY_BYTES
_CODES_AT = _SCALE_AT + SCALE.size
_NOBODY = bytes(KEY_BYTES)


class Slab:
    """Rows of (scope, digest, scale, int8 codes), in chunks that never move; a freed row is the next to be used.

    Chunks are anonymous mappings: untouched rows of the last one take no memory, and giving chunks back does not
    depend on the heap's fragmentation.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.stride = (_CODES_AT + dimensions + 3) & ~3
        self.high = 0
        """Rows ever used; what memory is taken for."""
        self._chunks: list[mmap.mmap] = []
        self._views: list[Bytes] = []
        self._free = array("I")

    def __len__(self) -> int:
        return self.high - len(self._free)

    @property
    def nbytes(self) -> int:
        touched = self.high * self.stride
        return touched + len(self._chunks) * mmap.PAGESIZE + getsizeof(self._free)

    def take(self, scope: bytes, digest: bytes, vector: Vector) -> int:
        """Fill a free row; `vector` is unit length."""
        row = self._free.pop() if self._free else self._new_row()
        scale, codes = quantised(vector)
        self._write(row, 0, scope + digest + SCALE.pack(scale) + codes)
        return row

    def replace(self, row: int, vector: Vector) -> None:
        scale, codes = quantised(vector)
        self._write(row, _SCALE_AT, SCALE.pack(scale) + codes)

    def release(self, row: int) -> None:
        """Free a row. It no longer belongs to any scope, so whoever still lists it finds that out."""
        self._write(row, 0, _NOBODY)
        self._free.append(row)
        if len(self._free) == self.high:
            self._forget_all()

    def scope(self, row: int) -> bytes:
        at = (row & (_CHUNK_ROWS - 1)) * self.stride
        return self._chunks[row >> _CHUNK_SHIFT][at : at + KEY_BYTES]

    def digest(self, row: int) -> bytes:
        at = (row & (_CHUNK_ROWS - 1)) * self.stride + _DIGEST_AT
        return self._chunks[row >> _CHUNK_SHIFT][at : at + KEY_BYTES]

    def gather(self, rows: Rows) -> Bytes:
        """Copies of whole rows, uint8 (n, stride), in the order asked."""
        if len(self._views) == 1:
            return self._views[0][rows]
        found = np.empty((len(rows), self.stride), dtype=np.uint8)
        chunk_of = rows >> _CHUNK_SHIFT
        for chunk in distinct(chunk_of).tolist():
            mine = np.flatnonzero(chunk_of == chunk)
            found[mine] = self._views[chunk][rows[mine] & (_CHUNK_ROWS - 1)]
        return found

    def vectors(self, gathered: Bytes) -> Vector:
        """float32 (n, dimensions) of gathered rows."""
        codes = gathered[:, _CODES_AT : _CODES_AT + self.dimensions].view(np.int8)
        return codes.astype(np.float32) * scales(gathered)[:, None]

    def similarities(self, gathered: Bytes, query: Vector) -> Vector:
        """Cosine of each gathered row with `query`, within about 5e-4."""
        codes = gathered[:, _CODES_AT : _CODES_AT + self.dimensions].view(np.int8)
        similarities: Vector = (codes.astype(np.float32) @ query) * scales(gathered)
        return np.clip(similarities, -1.0, 1.0)

    def snapshot(self) -> "Slab":
        """The same memory for a reading thread: rows may change under it, but none goes away."""
        twin = copy.copy(self)
        twin._views = list(self._views)  # noqa: SLF001  its own class
        return twin

    def _write(self, row: int, offset: int, data: bytes) -> None:
        at = (row & (_CHUNK_ROWS - 1)) * self.stride + offset
        self._chunks[row >> _CHUNK_SHIFT][at : at + len(data)] = data

    def _new_row(self) -> int:
        if self.high == len(self._chunks) * _CHUNK_ROWS:
            chunk = mmap.mmap(-1, _CHUNK_ROWS * self.stride, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._chunks.append(chunk)
            self._views.append(np.frombuffer(chunk, dtype=np.uint8).reshape(_CHUNK_ROWS, self.stride))
        self.high += 1
        return self.high - 1

    def _forget_all(self) -> None:
        """The mappings go when the last view of them does: a background build may still be reading."""
        self.high = 0
        self._free = array("I")
        self._views = []
        self._chunks = []


def scopes(gathered: Bytes) -> Bytes:
    return gathered[:, :KEY_BYTES]


def digests(gathered: Bytes) -> list[bytes]:
    return [row.tobytes() for row in gathered[:, _DIGEST_AT:_SCALE_AT]]


def scales(gathered: Bytes) -> Vector:
    return np.ascontiguousarray(gathered[:, _SCALE_AT:_CODES_AT]).view(np.float32)[:, 0]
