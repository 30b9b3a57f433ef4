"""What kind of answer a question wants."""

from collections.abc import Sequence
from typing import Final

from inference_cache_sidecar.guard.words import AUXILIARIES, WH

YES_NO: Final = "yes-no"
OPEN: Final = "open"
""" "what", "which", an imperative or a keyword search."""

_DEGREES: Final = frozenset("many much long far often old tall big large high fast deep heavy soon late hot cold expensive wide strong".split())
_SAME_DEGREE: Final = {"large": "big", "tall": "high"}
_NOUNS: Final = {
    "time": "when", "date": "when", "day": "when", "year": "when", "place": "where", "location": "where", "reason": "why", "reasons": "why",
    "cause": "why", "causes": "why", "way": "how", "ways": "how", "steps": "how", "method": "how", "methods": "how", "process": "how",
    "procedure": "how", "person": "who",
}  # fmt: skip
_AS_NOUN_AFTER_IS: Final = frozenset(("reason", "reasons", "way", "ways", "steps", "method", "methods", "process", "procedure", "causes", "cause"))
_COPULA: Final = frozenset("is are was were s be best the a some good easiest fastest main".split())


def kind(words: Sequence[str]) -> str:
    """When, where, who, why, how, a degree ("how many"), yes-no, or open."""
    if words and words[0] in AUXILIARIES:
        return _alternative(words)
    at = next((position for position, word in enumerate(words[:12]) if word in WH), None)
    if at is None or (at > 0 and words[at] in ("that", "which", "who", "when", "where", "what") and at > 6):
        return OPEN
    word = words[at]
    if word == "how":
        return _how(words[at + 1 :])
    if word in ("what", "which"):
        return _what(words[at + 1 :])
    return "who" if word in ("who", "whom", "whose") else word


def _alternative(words: Sequence[str]) -> str:
    return YES_NO


def _how(rest: Sequence[str]) -> str:
    if rest and rest[0] in _DEGREES:
        return "how " + _SAME_DEGREE.get(rest[0], rest[0])
    return "how"


def _what(rest: Sequence[str]) -> str:
    """ "what time" is "when"; "what is the best way to" is "how"."""
    if rest and rest[0] in ("time", "date", "day", "year", "place"):
        return _NOUNS[rest[0]]
    for word in rest[:5]:
        if word in _AS_NOUN_AFTER_IS:
            return _NOUNS[word]
        if word not in _COPULA:
            break
    return "how" if tuple(rest[:4]) in _WHAT_TO_DO or tuple(rest[:3]) in _WHAT_TO_DO else OPEN


_WHAT_TO_DO: Final = frozenset(
    tuple(phrase.split()) for phrase in ("can i do to", "should i do to", "can you do to", "do i do to", "should one do to", "can we do to", "to do to")
)




def compatible(one: str, other: str) -> bool:
    return one == other
