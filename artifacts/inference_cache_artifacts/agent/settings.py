"""What an agent is told by its command line. Pure."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from inference_cache_artifacts.handover.protocol import JOB_SECONDS
from inference_cache_artifacts.request import Limits

HIGH_WATER: Final = 0.85
_LOWER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds."""

    away: float = 10.0
    """Nobody took a job, and the pod was not heard of."""
    silent: float = 30.0
    """A job was taken, and neither the pod nor a byte of it was heard of."""
    slow: float = 120.0
    """A job was taken, its pod is heard of, and its answer has not begun."""
    given_up: float = 60.0
    """The pod of a fetch was not heard of."""
    remembered: float = 300.0
    """A fetch that has ended."""
    job: float = JOB_SECONDS
    round: float = 60.0
    """Between two looks at the disk."""


@dataclass(frozen=True, slots=True)
class Settings:
    root: Path
    """Of the stores, one for each namespace."""
    node: str
    limits: Limits = field(default_factory=Limits)
    """Of each fetch."""
    high_water: float = HIGH_WATER
    """Share of the disk in use above which trees are removed that nobody uses."""
    most_fetches: int = 64
    """Trees, at the same time; a quarter of them at most is one namespace's. Each may be asked for by several pods."""
    most_files: int = 500_000
    """Of all manifests that pods have sent, and that are in memory while their trees are fetched; half of them at most one namespace's."""
    patience: Patience = field(default_factory=Patience)

    @property
    def low_water(self) -> float:
        """Down to here they are removed."""
        return max(0.0, self.high_water - _LOWER)
