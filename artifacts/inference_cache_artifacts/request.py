"""What is to be fetched, and within which limits. Made by `command`, and by whoever uses `fetching` otherwise."""

from dataclasses import dataclass, field

from inference_cache_artifacts.manifest import Manifest
from inference_cache_artifacts.names import tree_name
from inference_cache_artifacts.sources.options import SourceOptions


@dataclass(frozen=True, slots=True)
class Limits:
    """`None` is no limit."""

    bytes_per_second: float | None = None
    connections: int = 4
    reserve_bytes: int = 0
    """Of the store's file system, left free."""
    timeout_seconds: float | None = None
    """For all of it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One version of one artifact."""

    sources: tuple[str, ...]
    """URLs of equal content, in the order in which they are asked."""
    version: str = ""
    manifest: Manifest | None = None
    """As it was given; None: it lies beside the files, or the store's own checksums count."""
    manifest_sha256: str = ""
    """Of the manifest beside the files, byte for byte; 64 hexadecimal digits, lower case. Empty: not pinned."""
    verify: bool = True
    """False: fetched also where nothing says what a file must be."""
    options: SourceOptions = field(default_factory=SourceOptions)
    limits: Limits = field(default_factory=Limits)
    keep: frozenset[str] = frozenset()
    """Names of trees that are not removed to make room."""
    name: str = ""
    """Of the tree, where it is another than sources, version and pin give: what an agent hands on has the name that it has there."""

    @property
    def pin(self) -> str:
        """The manifest, where the request says which it is; else empty."""
        return self.manifest.digest if self.manifest is not None else self.manifest_sha256

    @property
    def tree_name(self) -> str:
        """In the store; known without asking anybody."""
        return self.name or tree_name(self.sources, self.version, self.pin, verified=self.verify)
