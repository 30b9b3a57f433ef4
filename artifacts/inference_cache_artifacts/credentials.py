"""A mounted Secret as a mapping: a file's name is the key, its content the value. Never logged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from inference_cache_artifacts.errors import BadRequest

_MOST_BYTES: Final = 1 << 20


def read_credentials(folder: Path) -> Mapping[str, str]:
    """Raises BadRequest, which names the key and never the value."""
    try:
        # Kubernetes keeps the files of a Secret in `..data`, a link that it swaps; the names beside it are links into it.
        files = [each for each in sorted(folder.iterdir()) if not each.name.startswith("..") and each.is_file()]
    except OSError as error:
        raise BadRequest(f"--credentials-dir {folder} cannot be read: {error.strerror}") from None
    return {each.name: _value(each) for each in files}


def _value(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            value = opened.read(_MOST_BYTES + 1)
        if len(value) > _MOST_BYTES:
            raise BadRequest(f"--credentials-dir: {file.name} has more than {_MOST_BYTES} bytes")
        return value.decode()
    except OSError as error:
        raise BadRequest(f"--credentials-dir: {file.name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadRequest(f"--credentials-dir: {file.name} is no text") from None
