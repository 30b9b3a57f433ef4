"""An entry and its vector as one value of the shared store, sealed; and back.

Layout before sealing: 8 bytes that name the embedder (zeros: no vector), the vector's length in components, its components in half
precision, the packed entry. Half precision moves a cosine by less than 0.0005, which is less than the index's own rounding.
"""

import hashlib
from dataclasses import dataclass
from struct import Struct
from typing import Final

import numpy as np

from inference_cache_contract import wire
from inference_cache_contract.canonical import NORMALISER_VERSION
from inference_cache_contract.entry import Entry
from inference_cache_sidecar.index.protocol import Vector
from inference_cache_sidecar.shared.sealing import Sealer, Unsealable

_HEAD: Final = Struct("<8sH")
_NOBODY: Final = bytes(8)
_HALF: Final = np.dtype("<f2")


def manifest(embedder_digest: str, dimensions: int) -> bytes:
    """8 bytes: vectors are compared only with those of the same embedder, dimensions and normaliser."""
    return hashlib.sha256(f"{embedder_digest}/{dimensions}/{NORMALISER_VERSION}".encode()).digest()[:8]


@dataclass(slots=True)
class Values:
    sealer: Sealer
    manifest: bytes | None = None
    """Of this sidecar's embedder; None until it is known: vectors are then neither written nor read."""
    dimensions: int = 384
    """Of the vectors of this sidecar's index."""

    def write(self, place: bytes, entry: Entry, vector: Vector | None) -> bytes:
        """Raises wire.WireError if the entry does not fit."""
        if vector is None or self.manifest is None:
            return self.sealer.seal(place, _HEAD.pack(_NOBODY, 0) + wire.pack(entry))
        head = _HEAD.pack(self.manifest, len(vector))
        return self.sealer.seal(place, head + vector.astype(_HALF).tobytes() + wire.pack(entry))

    def read(self, place: bytes, sealed: bytes) -> tuple[Entry, Vector | None]:
        """Raises Unsealable for whatever was not written by `write` for this place; a vector of another embedder is left out."""
        value = self.sealer.unseal(place, sealed)
        if len(value) < _HEAD.size:
            raise Unsealable("shorter than a head")
        embedder, components = _HEAD.unpack_from(value)
        start = _HEAD.size + components * _HALF.itemsize
        try:
            entry = wire.unpack(value[start:])
        except wire.WireError as error:
            raise Unsealable("no entry") from error
        if not place.endswith(entry.digest.hex().encode()):
            raise Unsealable("an entry of another key")
        if embedder == _NOBODY or embedder != self.manifest:
            return entry, None
        return entry, _vector(value[_HEAD.size : start], self.dimensions)


def _vector(data: bytes, dimensions: int) -> Vector | None:
    """None for what is no vector of unit length."""
    if len(data) != dimensions * _HALF.itemsize:
        return None
    vector: Vector = np.frombuffer(data, _HALF).astype(np.float32)
    length = float(np.linalg.norm(vector))
    if not 0.9 < length < 1.1:
        return None
    unit: Vector = vector / np.float32(length)
    return unit
