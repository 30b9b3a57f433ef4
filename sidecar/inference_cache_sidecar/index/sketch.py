"""Bits that stand for a vector: two vectors at an angle differ in about angle/π of them (SimHash: Charikar, STOC 2002).

Regions scan sketches to find the rows worth comparing exactly; a similarity is never taken from them.
"""

from functools import cache

import numpy as np

from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.index.vectors import Bytes

_SEED = 20_260_101


@cache
def _axes(dimensions: int) -> Vector:
    """The same ones every time: a constant, in effect."""
    gaussian = np.random.default_rng(_SEED).standard_normal((dimensions, dimensions)).astype(np.float32)
    axes = np.ascontiguousarray(np.linalg.qr(gaussian)[0])
    axes.setflags(write=False)
    return axes


class Sketcher:
    """Signs of a vector along fixed random orthogonal axes."""

    def __init__(self, dimensions: int) -> None:
        self._axes = _axes(dimensions)
        self.width = -(-dimensions // 8)
        """Bytes of a sketch."""

    @property
    def nbytes(self) -> int:
        return int(self._axes.nbytes)

    def sketch(self, vector: Vector) -> Bytes:
        return np.packbits(self._axes @ vector > 0)

    def sketches(self, vectors: Vector) -> Bytes:
        """uint8 (n, width) of float32 (n, dimensions)."""
        return np.packbits(vectors @ self._axes.T > 0, axis=1)
