"""The promise of a vector index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""float32 (d,), unit length."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    digest: bytes
    similarity: float
    """Cosine in [-1, 1]."""


class VectorIndex(Protocol):
    dimensions: int

    def add(self, scope: bytes, digest: bytes, vector: Vector) -> None:
        """Raises ValueError if `vector` has another size; replaces the vector of an equal digest."""
        ...

    def add_all(self, added: Sequence[tuple[bytes, bytes, Vector]]) -> None:
        """As `add` for each (scope, digest, vector), all of them new or replaced."""
        ...

    def remove(self, scope: bytes, digest: bytes) -> bool: ...

    def search(self, scope: bytes, vector: Vector, limit: int) -> list[Neighbour]:
        """Nearest first, only of `scope`."""
        ...

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Everything the index holds in memory: vectors, ids, scopes, free rows."""
        ...

    @property
    def vector_bytes(self) -> int:
        """What one vector takes as it is kept, without keys and what leads to it."""
        ...
