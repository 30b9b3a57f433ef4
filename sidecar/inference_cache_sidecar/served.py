"""Which semantic hits went out lately, by the id in the answer, so that feedback can name one.

The pipeline adds, the admin port's feedback looks up. Holds digests only, no text.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class ServedHit:
    asked: bytes
    """Digest of the question."""
    stored: bytes
    """Digest of the entry that answered it."""


class Served:
    """The latest `REMEMBERED` semantic hits."""

    def __init__(self) -> None:
        # By the id's digest: a client chooses its id, and may choose a long one.
        self._hits: OrderedDict[bytes, ServedHit] = OrderedDict()

    def add(self, answer_id: str, hit: ServedHit) -> None:
        self._hits[_key(answer_id)] = hit
        if len(self._hits) > REMEMBERED:
            self._hits.popitem(last=False)

    def find(self, answer_id: str) -> ServedHit | None:
        return self._hits.get(_key(answer_id))


def _key(answer_id: str) -> bytes:
    return hashlib.sha256(answer_id.encode("utf-8", "surrogateescape")).digest()
