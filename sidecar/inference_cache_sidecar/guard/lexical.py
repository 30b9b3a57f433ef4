"""The guard of the semantic tier: refuses a stored answer whose question differs in something that changes answers.

Called by the pipeline for every candidate that was not identical byte for byte.
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
"""Characters; longer texts are not compared and pass only if equal save for white space."""

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
    ("order", order.reordered),
    ("content", content.differs),
)


class LexicalGuard:
    def __init__(self, remembered: int = 2048) -> None:
        self._read = lru_cache(maxsize=remembered)(read)

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
        for name, refuses in RULES:
            if refuses(one, other):
                return Refusal(name)
        return None


def _loose(text: str) -> list[str]:
    """The words without capitals and without the punctuation around them; quotations and code keep theirs."""
    if _MARKED.search(text):
        return text.split()
    return [word.lstrip(_OPENING).rstrip(_CLOSING) or word for word in text.lower().split()]


_MARKED: Final = re.compile(r"[`\"“]|\d!")
_OPENING: Final = "'(‘["
_CLOSING: Final = "'’)].,;:!?…"
