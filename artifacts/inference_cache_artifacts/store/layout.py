"""Where everything in a store lies."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inference_cache_artifacts.errors import DiskFailed
from inference_cache_artifacts.store import disk

TEMPORARY: Final = ".tmp-"
"""Before what is being made; never counts as there."""
GONE: Final = ".gone-"
"""Before what is being removed; never counts as there."""

MARKER: Final = "manifest.json"
"""In a tree's folder, beside FILES: what makes it one."""
FILES: Final = "files"


@dataclass(frozen=True, slots=True)
class Store:
    """The folders below `root`. Makes nothing until `prepare`."""

    root: Path

    @property
    def blobs(self) -> Path:
        return self.root / "blobs" / "sha256"

    @property
    def trees(self) -> Path:
        return self.root / "trees"

    @property
    def partials(self) -> Path:
        return self.root / "partial"

    @property
    def leases(self) -> Path:
        return self.root / "leases"

    @property
    def pending(self) -> Path:
        return self.root / "pending"

    @property
    def used(self) -> Path:
        return self.root / "used"

    @property
    def lock(self) -> Path:
        return self.root / "collect.lock"

    def blob(self, sha256: str) -> Path:
        return self.blobs / sha256[:2] / sha256

    def tree(self, name: str) -> Path:
        return self.trees / name

    def prepare(self) -> None:
        """Every folder is there and can be written, and what killed processes left is gone. Raises DiskFailed, NoSpace."""
        # Imported when it is needed: what clears up knows the layout, and a warm start needs neither.
        from inference_cache_artifacts.store import litter  # noqa: PLC0415

        for folder in (self.blobs, self.trees, self.partials, self.leases, self.pending, self.used):
            with disk.disk_errors(folder):
                disk.make_folder(folder)
            _check_writable(folder)
        with disk.disk_errors(self.lock):
            self.lock.touch()
        litter.sweep(self)


def _check_writable(folder: Path) -> None:
    """`access` also knows of read-only mounts."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DiskFailed(f"{folder}: cannot be written (read-only, or another user's)")
