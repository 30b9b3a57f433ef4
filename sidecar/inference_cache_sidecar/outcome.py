"""Outcomes of a lookup and of a flight, as types. Made by `lookup` and `flights`, matched by the pipeline."""

from dataclasses import dataclass
from typing import Literal

from multidict import CIMultiDict

from inference_cache_contract.entry import Entry
from inference_cache_sidecar.errors import UpstreamFault
from inference_cache_sidecar.guard.protocol import Refusal
from inference_cache_sidecar.index.protocol import Vector

HitKind = Literal["exact", "semantic"]


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that may be served."""

    entry: Entry
    kind: HitKind
    remaining_seconds: float
    """Negative once stale."""
    similarity: float | None = None
    vector: Vector | None = None
    """The query's own, where it was embedded."""


@dataclass(frozen=True, slots=True)
class Miss:
    """Nothing may be served; `vector` is kept so that the answer can be stored with it."""

    vector: Vector | None = None
    refusal: Refusal | None = None
    similarity: float | None = None
    """Of the nearest entry that was found and not served."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The head of upstream's answer; its body is the flight's."""

    status: int
    reason: str
    headers: CIMultiDict[str]
    events: bool
    """The body is a stream of SSE events (each chunk one event), else plain."""
    miss: Miss


@dataclass(frozen=True, slots=True)
class Failed:
    """Upstream gave no answer."""

    fault: UpstreamFault


Outcome = Hit | Answered | Failed
"""What a flight comes to."""
