"""The folder that a person asked for is a link to a tree of the store, swapped in one step: nobody ever sees half of a version."""

import os
import re
import secrets
from pathlib import Path
from typing import Final

from inference_cache_artifacts.errors import BadRequest, DiskFailed
from inference_cache_artifacts.store.layout import FILES

_TREE: Final = re.compile(rf"/trees/([0-9a-f]{{32}})/{FILES}$")


def default_store(target: Path) -> Path:
    """Beside the folder, so that all that is fetched into one place shares its bytes, and moves with its volume."""
    return target.parent / ".inference-cache-store"


def check_target(target: Path) -> None:
    """Before anything is fetched. Raises BadRequest."""
    if tree_behind(target) is not None or not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir() or any(target.iterdir()):
        raise BadRequest(f"{target} is there already, and was not made by this command; name another folder, or remove it")
    if target.is_mount():
        raise BadRequest(f"{target} is where a volume is mounted, and cannot become a link; name a folder in it, such as {target}/model")


def tree_behind(target: Path) -> str | None:
    """The name of the tree that `target` is a link to; None where it is nothing of this kind."""
    if not target.is_symlink():
        return None
    found = _TREE.search(os.fspath(target.readlink()))
    return found[1] if found else None


def point(target: Path, files: Path) -> None:
    """`target` is a link to `files` from now on. Raises DiskFailed."""
    text = _link_text(target, files)
    try:
        if not (target.is_symlink() and str(target.readlink()) == text):
            _swap(target, text)
    except OSError as error:
        raise DiskFailed(f"{target} cannot be made a link to the files: {error.strerror or error}") from error


def _swap(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    fresh.symlink_to(text)
    try:
        if target.is_dir() and not target.is_symlink():
            target.rmdir()
        fresh.replace(target)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _link_text(target: Path, files: Path) -> str:
    """Relative where the store lies beside the folder: it must hold wherever the volume is mounted."""
    here, there = target.parent.resolve(), files.resolve()
    return os.path.relpath(there, here) if there.is_relative_to(here) else str(there)
