"""What fetches left that nobody goes on with: partial files and announcements."""

from pathlib import Path
from typing import Final

from inference_cache_artifacts.store import disk, lease_files, pending
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.rounds import Round, own_bytes

_NAME_LENGTH: Final = 32


def remove(this: Round, age_seconds: float) -> None:
    """Partial files and announcements of fetches that nobody is at, and that nobody touched for so long."""
    for name in pending.names(this.store):
        if not _is_young(this.store.pending / name, this.now, age_seconds) and not this.is_fetched(name):
            pending.withdraw(this.store, name)
    held = {name for name in lease_files.names(this.store.leases) if this.is_fetched(name)}
    for key, paths in _partials(this.store).items():
        if not any(_is_young(path, this.now, age_seconds) for path in paths) and not _is_fetched(key, held):
            _remove_partial(this, paths)


def _partials(store: Store) -> dict[str, list[Path]]:
    """By key: what comes before the first dot."""
    found: dict[str, list[Path]] = {}
    for each in disk.listed(store.partials):
        found.setdefault(each.partition(".")[0], []).append(store.partials / each)
    return found


def _is_young(path: Path, now: float, age_seconds: float) -> bool:
    try:
        return now - path.stat().st_mtime < age_seconds
    except FileNotFoundError:
        return False


def _is_fetched(key: str, held: set[str]) -> bool:
    """A key that is a tree's name, or begins with one, goes by that lease; any other might belong to whatever is being fetched."""
    return key[:_NAME_LENGTH] in held or (bool(held) and not _looks_named(key))


def _looks_named(key: str) -> bool:
    return len(key) == _NAME_LENGTH or key[_NAME_LENGTH : _NAME_LENGTH + 1] == "-"


def _remove_partial(this: Round, paths: list[Path]) -> None:
    for path in paths:
        this.done.freed += own_bytes(path)
        path.unlink(missing_ok=True)
    this.done.partials += 1
