"""Checksums of a stream, several at once. Updates of more than some kilobytes let other threads run."""

import hashlib
from collections.abc import Callable, Iterable

from inference_cache_artifacts.source import Algorithm, Checksum


class Hashes:
    """SHA-256, which names what is kept, and whatever else is asked for."""

    def __init__(self, algorithms: Iterable[Algorithm] = ()) -> None:
        self._sha256 = hashlib.sha256()
        self._running: dict[Algorithm, int] = {each: 0 for each in algorithms if each != "sha256"}
        self._functions = {each: _function(each) for each in self._running}

    def update(self, view: memoryview) -> None:
        self._sha256.update(view)
        for name, value in self._running.items():
            self._running[name] = self._functions[name](view, value)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def is_right(self, checksum: Checksum) -> bool:
        return self._value(checksum.algorithm) == checksum.value

    def _value(self, algorithm: Algorithm) -> bytes:
        if algorithm == "sha256":
            return self._sha256.digest()
        return self._running[algorithm].to_bytes(8 if algorithm == "crc64nvme" else 4, "big")


def _function(algorithm: Algorithm) -> Callable[[memoryview, int], int]:
    # Imported where it is needed: most artifacts have a manifest.
    from awscrt import checksums  # noqa: PLC0415

    functions: dict[str, Callable[[memoryview, int], int]] = {
        "crc32": checksums.crc32,
        "crc32c": checksums.crc32c,
        "crc64nvme": checksums.crc64nvme,
    }
    return functions[algorithm]
