"""What the engine tells while it works. Counted by `counting.py`, shown by `displays.py`."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: well, where there is no `reason`."""

    reason: str = ""
    """As of ArtifactError."""
    file: str | None = None
    message: str = ""
    tree: str = ""
    """The tree's name in the store, if it ended well."""
    path: str = ""
    """Where the files are, or the manifest, if it ended well."""
    sha256: str = ""
    """Of the manifest that was made."""

    @property
    def is_well(self) -> bool:
        return not self.reason


class Progress(Protocol):
    """All methods may be called by any thread, and cost next to nothing."""

    def planned(self, files: int, total_bytes: int, already_bytes: int) -> None:
        """What there is to do; `already_bytes` of it need not come from a source."""
        ...

    def received(self, count: int) -> None:
        """Bytes that newly came from a source, also those that turn out to be wrong."""
        ...

    def verified(self, path: str, size: int) -> None:
        """A file is whole and what it must be."""
        ...

    def noted(self, event: str, **fields: object) -> None:
        """What people wonder about afterwards: `retry`, `mirror`, `waiting`, `shared`; fields are texts and numbers, no secrets."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Told once, by who started it; nothing comes after it."""
        ...


class Silent:
    """Shows nothing."""

    def planned(self, files: int, total_bytes: int, already_bytes: int) -> None: ...

    def received(self, count: int) -> None: ...

    def verified(self, path: str, size: int) -> None: ...

    def noted(self, event: str, **fields: object) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...
