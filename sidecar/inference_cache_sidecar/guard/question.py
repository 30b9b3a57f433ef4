"""What kind of answer a question wants."""

from collections.abc import Sequence
from typing import Final

from inference_cache_sidecar.guard.lists import wordset
from inference_cache_sidecar.guard.words import AUXILIARIES, WH

YES_NO: Final = "yes-no"
OPEN: Final = "open"
""" "what", "which"."""
MAY: Final = "may"
""" "Is it possible to", which wants yes or no, and how."""
STATEMENT: Final = "statement"
"""An imperative, a keyword search, or something that is so."""

_DEGREES: Final = wordset(
    """
    many much long far often old tall big large high fast deep heavy soon late hot cold expensive wide strong
    """
)
_SAME_DEGREE: Final = {"large": "big", "tall": "high"}
_ASKED_BY_NOUN: Final = {
    "reason": "why", "reasons": "why", "cause": "why", "causes": "why", "way": "how", "ways": "how", "steps": "how", "method": "how",
    "methods": "how", "process": "how", "procedure": "how", "caused": "why", "cost": "how much", "price": "how much", "number": "how many",
    "age": "how old", "duration": "how long", "distance": "how far", "frequency": "how often", "height": "how high",
}  # fmt: skip
_ASKED_AT_ONCE: Final = {"time": "when", "date": "when", "day": "when", "year": "when", "place": "where", "location": "where"}
_BEFORE_NOUN: Final = wordset(
    """
    is are was were do does it s be may the a some your best good easiest fastest main most effective different better
    """
)
_WHAT_TO_DO: Final = frozenset(
    tuple(phrase.split()) for phrase in ("can i do to", "should i do to", "can you do to", "do i do to", "should one do to", "can we do to")
)


def kind(words: Sequence[str]) -> str:
    """When, where, who, why, how, a degree ("how many"), yes-no, open, or a statement."""
    if words and words[0] in AUXILIARIES:
        return YES_NO
    at = next((position for position, word in enumerate(words[:12]) if _asks(word, position)), None)
    return STATEMENT if at is None else _asked_by(words, at)


def kinds(words: Sequence[str]) -> frozenset[str]:
    """The kinds of all question words in the text."""
    return frozenset(_asked_by(words, position) for position, word in enumerate(words) if _asks(word, position))


def _asks(word: str, position: int) -> bool:
    """Further on "when" and "who" join clauses."""
    return word in WH and (position < 4 or word in ("how", "why", "what"))


def compatible(one: str, other: str, asked_by_one: frozenset[str], asked_by_other: frozenset[str]) -> bool:
    """Both want the same kind of answer, or one asks the other's question among its own; a statement may want several kinds."""
    if one == other:
        return True
    if MAY in (one, other):
        return one in _MAY and other in _MAY
    if STATEMENT in (one, other):
        return one in _STATED and other in _STATED
    return YES_NO not in (one, other) and (one in asked_by_other or other in asked_by_one)


_MAY: Final = frozenset((MAY, YES_NO, "how"))
_STATED: Final = frozenset((STATEMENT, OPEN, "why", "how"))
""" "My card is blocked" is "why is my card blocked"; "tyre change" is "how do I change a tyre"."""


def _asked_by(words: Sequence[str], at: int) -> str:
    word, rest = words[at], words[at + 1 : at + 7]
    if word == "how":
        return "how " + _SAME_DEGREE.get(rest[0], rest[0]) if rest and rest[0] in _DEGREES else "how"
    if word == "howcan":
        return MAY
    if word in ("what", "which"):
        return _what(rest)
    return "who" if word in ("whom", "whose") else word


def _what(rest: Sequence[str]) -> str:
    """ "what time" is "when"; "what is the best way to" and "what is it like" are "how"."""
    if rest and rest[0] in _ASKED_AT_ONCE:
        return _ASKED_AT_ONCE[rest[0]]
    if tuple(rest[:4]) in _WHAT_TO_DO or ("like" in rest and rest[-1] != "like" and rest[0] not in ("do", "would")):
        return "how"
    for word in rest:
        if word in _ASKED_BY_NOUN:
            return _ASKED_BY_NOUN[word]
        if word not in _BEFORE_NOUN:
            break
    return OPEN
