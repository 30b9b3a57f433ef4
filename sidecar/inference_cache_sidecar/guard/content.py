"""Do the two questions speak of the same things?"""

from typing import Final

from inference_cache_sidecar.guard import words
from inference_cache_sidecar.guard.lemma import lemma
from inference_cache_sidecar.guard.question import YES_NO
from inference_cache_sidecar.guard.reading import Reading

_FILLERS: Final = frozenset(map(lemma, words.FILLERS))

_VAGUE: Final = frozenset(map(lemma, words.VAGUE))
_NONE: Final[frozenset[str]] = frozenset()
_ASKED: Final = {
    kind: frozenset(map(lemma, line.split()))
    for kind, line in (
        ("when", "time date"),
        ("where", "place location"),
        ("why", "reason cause"),
        ("how", "way step process"),
        ("who", "person"),
        ("how much", "cost price"),
        ("how many", "number"),
        ("how old", "age"),
        ("how long", "duration time"),
        ("how far", "distance"),
        ("how often", "frequency time"),
        ("how high", "height"),
        ("may", "way"),
    )
}
"""What the question word itself says: "what is the reason" is "why"."""


def differs(one: Reading, other: Reading) -> bool:
    left, right = one.bag - other.bag - _VAGUE, other.bag - one.bag - _VAGUE
    if not left and not right:
        return False
    if one.question != YES_NO:
        free = _FILLERS | _ASKED.get(one.question, _NONE)
        left, right = left - free, right - free
        if not left and not right:
            return False
    return len(left) < 2 or len(right) < 2 or _replaced(one.content, other.content)


def _replaced(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """The same sentence with words put in place of others, rather than another sentence."""
    if len(one) != len(other):
        return False
    kept = sum(left == right for left, right in zip(one, other, strict=True))
    return kept * 2 >= len(one)
