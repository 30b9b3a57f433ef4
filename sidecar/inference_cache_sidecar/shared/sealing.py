"""Values as they lie in the shared store: compressed, checked, and encrypted where keys are given.

Layout: one byte of form, then either a zstd frame with a checksum (form 0), or the first 4 bytes of the key's SHA-256, a nonce of
12 and AES-256-GCM's output over such a frame, bound to the name of its key in the store (form 1). Anything else is `Unsealable`:
a miss. With encryption keys, form 0 is unsealable too: who can write into the store must not be able to answer.
"""

import hashlib
import os
from collections.abc import Sequence
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
MOST_BYTES: Final = 64 * 2**20
"""A value that would unpack to more is unsealable."""
LEVEL: Final = 1
_PLAIN: Final = b"\x00"
_ENCRYPTED: Final = b"\x01"
_NAME_BYTES: Final = 4
_NONCE_BYTES: Final = 12


class Unsealable(ValueError):
    """These bytes were not sealed by us, or not for this place, or not with a key we have."""


class Sealer:
    """For one thread. `keys` (32 bytes each): the first encrypts, all of them decrypt, so that keys can be rotated; none: plain."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = {hashlib.sha256(key).digest()[:_NAME_BYTES]: AESGCM(key) for key in keys}
        self._writes = next(iter(self._ciphers), None)
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
        self._decompressor = zstandard.ZstdDecompressor()

    @property
    def encrypts(self) -> bool:
        return self._writes is not None

    def is_current(self, sealed: bytes) -> bool:
        """Whether `seal` would use the same key today."""
        named = sealed[1 : 1 + _NAME_BYTES] if sealed[:1] == _ENCRYPTED else None
        return named == self._writes

    def seal(self, place: bytes, value: bytes) -> bytes:
        """`place` is the key it will lie under."""
        frame = self._compressor.compress(value)
        if self._writes is None:
            return _PLAIN + frame
        nonce = os.urandom(_NONCE_BYTES)
        return _ENCRYPTED + self._writes + nonce + self._ciphers[self._writes].encrypt(nonce, frame, place)

    def unseal(self, place: bytes, sealed: bytes) -> bytes:
        """Raises Unsealable, never anything else."""
        form, rest = sealed[:1], sealed[1:]
        if form == _PLAIN and not self._ciphers:
            return self._unpacked(rest)
        if form == _ENCRYPTED:
            return self._unpacked(self._decrypted(place, rest))
        raise Unsealable("of another form")

    def _decrypted(self, place: bytes, rest: bytes) -> bytes:
        cipher = self._ciphers.get(rest[:_NAME_BYTES])
        if cipher is None:
            raise Unsealable("under a key that is not here")
        start = _NAME_BYTES + _NONCE_BYTES
        try:
            return cipher.decrypt(rest[_NAME_BYTES:start], rest[start:], place)
        except (InvalidTag, ValueError) as error:
            raise Unsealable("not as it was written") from error

    def _unpacked(self, frame: bytes) -> bytes:
        try:
            if not 0 <= zstandard.frame_content_size(frame) <= MOST_BYTES:
                raise Unsealable("of no size, or too large")
            return self._decompressor.decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Unsealable("not as it was written") from error
