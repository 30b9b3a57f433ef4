"""What the transfer is asked for, and how it says that bytes are not what they should be."""

from dataclasses import dataclass, field
from pathlib import Path

from inference_cache_artifacts.source import Checksum, Source
from inference_cache_artifacts.store.partials import Header


class Mismatch(Exception):
    """All bytes of a file are there, and they are not those that were promised; never leaves this package."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file to fetch."""

    path: str
    size: int
    checksums: tuple[Checksum, ...]
    """What it must be; none: it is taken as it comes."""
    data: Path = field(repr=False)
    """Where it grows."""
    header: Header = field(repr=False)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole file, verified by all of its checksums, in `data`."""

    wanted: Wanted
    sha256: str


@dataclass(frozen=True, slots=True)
class Plan:
    files: tuple[Wanted, ...]
    mirrors: tuple[Source, ...]
    """Of the same bytes, in the order in which they are tried."""
    connections: int
    bytes_per_second: float | None
