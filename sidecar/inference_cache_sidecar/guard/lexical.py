"""The guard of both tiers: refuses a stored answer whose question differs in something that changes answers.

Called by the pipeline for every candidate that was not identical byte for byte. Knows English only: of texts in other
languages only those pass that differ in nothing but capitals, white space and the punctuation around words.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from inference_cache_sidecar.guard import content, order, rules
from inference_cache_sidecar.guard.protocol import Refusal
from inference_cache_sidecar.guard.reading import Reading, read
from inference_cache_sidecar.guard.typos import is_slip

MAX_COMPARED: Final = 4096
"""Characters; longer texts pass only if equal save for white space (those the embedder does not see to their end anyway)."""
MAX_REMEMBERED: Final = 512
"""Characters of a text whose reading is kept; a reading of that length takes some 20 kB."""

Rule = Callable[[Reading, Reading], bool]

RULES: Final[tuple[tuple[str, Rule], ...]] = (
    ("language", rules.foreign),
    ("literal", rules.literal),
    ("identifier", rules.identifier),
    ("number", rules.number),
    ("unit", rules.unit),
    ("negation", rules.negation),
    ("opposite", rules.opposite),
    ("date", rules.date),
    ("entity", rules.entity),
    ("direction", rules.direction),
    ("role", rules.role),
    ("question", rules.question),
    ("tense", rules.tense),
    ("qualifier", rules.qualifier),
    ("content", content.differs),
    ("order", order.reordered),
)
"""In this order the first that applies names the refusal; besides these "length" exists."""


class LexicalGuard:
    """Compares two texts by rules alone; the similarity plays no part."""

    def __init__(self, remembered: int = 1024) -> None:
        self._remembered = lru_cache(maxsize=remembered)(read)

    def refusal(self, asked: str, stored: str, similarity: float) -> Refusal | None:
        if asked == stored:
            return None
        if max(len(asked), len(stored)) > MAX_COMPARED:
            return None if asked.split() == stored.split() else Refusal("length")
        if is_slip(asked, stored):
            return None
        one, other = self._read(asked), self._read(stored)
        if _loose(asked) == _loose(stored):
            return Refusal("entity") if rules.cased_apart(one, other) else None
        return next((Refusal(name) for name, refuses in RULES if refuses(one, other)), None)

    def _read(self, text: str) -> Reading:
        return self._remembered(text) if len(text) <= MAX_REMEMBERED else read(text)


def _loose(text: str) -> list[str]:
    """The words without capitals and without the punctuation around them; quotations and code keep theirs."""
    if _MARKED.search(text):
        return text.split()
    return [word.lstrip(_OPENING).rstrip(_CLOSING) or word for word in text.lower().split()]


_MARKED: Final = re.compile(r"[`\"“]|\d!")
_OPENING: Final = "'(‘["
_CLOSING: Final = "'’)].,;:!?…"
