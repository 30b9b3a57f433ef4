"""What takes minutes to make is made once a machine, in a cache that every clone shares."""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MARKER: Final = "inference-cache-complete"
"""The file that a complete folder has; it holds the digest of what the folder was made from."""


def cache_folder() -> Path:
    named = os.environ.get("INFERENCE_CACHE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "inference-cache"


def recipe_of(files: Iterable[Path]) -> str:
    """A digest of the files' content."""
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def made_once(name: str, recipe: str, make: Callable[[Path], None], announcement: str) -> Path:
    """The cache's folder `name`, filled by `make` where it is not there in full or was made from another recipe.

    Two runs at once wait for each other; one that was interrupted is begun again.
    """
    folder = cache_folder() / name
    if _complete(folder, recipe):
        return folder
    with _locked(folder.with_name(f"{name}.lock")):
        if not _complete(folder, recipe):
            sys.stderr.write(f"{announcement}: into {folder}\n")
            _replace(folder, recipe, make)
    return folder


def _complete(folder: Path, recipe: str) -> bool:
    marker = folder / MARKER
    return marker.exists() and marker.read_text() == recipe


def _replace(folder: Path, recipe: str, make: Callable[[Path], None]) -> None:
    # Of one that was killed.
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        fresh = Path(temporary) / "made"
        fresh.mkdir()
        make(fresh)
        (fresh / MARKER).write_text(recipe)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
