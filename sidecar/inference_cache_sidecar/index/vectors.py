"""What is done to a vector before it is kept or compared: checked, made unit length, rounded to bytes."""

import math
from struct import Struct
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from inference_cache_sidecar.index.protocol import Vector

Codes = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.uint32]

SCALE = Struct("<f")
_Number = TypeVar("_Number", bound=np.generic)


def unit(vector: Vector, dimensions: int) -> Vector:
    """`vector` as float32 of unit length. Raises ValueError if it has another size, no direction, or a value that is not finite."""
    checked = np.ascontiguousarray(vector, dtype=np.float32)
    if checked.shape != (dimensions,):
        raise ValueError(f"a vector of shape {checked.shape} where ({dimensions},) is indexed")
    squared = float(checked @ checked)
    if not math.isfinite(squared) or squared == 0.0:
        raise ValueError("a vector that is not finite, or zero")
    if abs(squared - 1.0) < 1e-5:
        return checked
    return checked / np.float32(math.sqrt(squared))


def quantised(vector: Vector) -> tuple[float, bytes]:
    """Scale and int8 codes of a unit vector: vector = scale × codes within half a scale per component.

    The scale is the vector's own, so no training is needed and no component is cut off.
    """
    scale = float(np.abs(vector).max()) / 127.0
    return scale, np.rint(vector / np.float32(scale)).astype(np.int8).tobytes()


def distinct(numbers: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Each once, in order. `np.unique` loads a part of NumPy at its first call, which would keep the event loop."""
    ordered = np.sort(numbers)
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]
