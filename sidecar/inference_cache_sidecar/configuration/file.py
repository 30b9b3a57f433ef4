"""The file of the hot configuration. Kubelet replaces it as a whole, by a symbolic link above it: it is never half written."""

import logging
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 2**20
"""All annotations of a pod together are a quarter of that."""
Look = tuple[int, int, int]
_log = logging.getLogger(__name__)


class WatchedFile:
    """Looked at often: a look is one `stat` unless the file is another than before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._look: Look | None = None
        self._text = ""

    def changed(self) -> str | None:
        """The file's text, if it is another than the last that was returned; None also while it is missing or empty."""
        try:
            look = self._looked()
            if look == self._look:
                return None
            text = self._path.read_bytes()[:MAX_BYTES].decode("utf-8", "replace")
        except OSError:
            return None
        self._look = look
        if not text.strip() or text == self._text:
            return None
        self._text = text
        return text

    def _looked(self) -> Look:
        told = self._path.stat()
        return told.st_ino, told.st_mtime_ns, told.st_size
