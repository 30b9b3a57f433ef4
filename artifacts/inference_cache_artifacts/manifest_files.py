"""A manifest that lies on this disk, or in a variable."""

import os
from pathlib import Path
from typing import Final

from inference_cache_artifacts.errors import BadManifest
from inference_cache_artifacts.manifest import MAX_BYTES, Manifest, parse_manifest

VARIABLE: Final = "env:"


def given_manifest(where: str) -> Manifest:
    """By the path of a file, or by `env:` and a variable's name. Raises BadManifest, which names it."""
    if not where.startswith(VARIABLE):
        return load_manifest(Path(where))
    text = os.environ.get(where.removeprefix(VARIABLE))
    if text is None:
        raise BadManifest(f"{where}: there is no such variable")
    return _parsed(where, text.encode(errors="surrogateescape"))


def load_manifest(file: Path) -> Manifest:
    """Raises BadManifest, which names the file."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadManifest(f"{file} cannot be read: {error.strerror}") from None
    return _parsed(str(file), text)


def _parsed(where: str, text: bytes) -> Manifest:
    try:
        return parse_manifest(text)
    except BadManifest as error:
        raise BadManifest(f"{where}: {error}", error.file) from None
