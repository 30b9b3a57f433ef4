"""Do the two questions speak of the same things?"""

from typing import Final

from inference_cache_sidecar.guard import words
from inference_cache_sidecar.guard.lemma import lemma
from inference_cache_sidecar.guard.question import YES_NO
from inference_cache_sidecar.guard.reading import Reading

_FILLERS: Final = frozenset(map(lemma, words.FILLERS))
_ADVERBS: Final = frozenset(map(lemma, words.ADVERBS))


def differs(one: Reading, other: Reading) -> bool:
    left, right = one.bag - other.bag, other.bag - one.bag
    if not left and not right:
        return False
    free = _ADVERBS if one.question == YES_NO else _FILLERS
    left, right = left - free, right - free
    if not left and not right:
        return False
    return len(left) < 2 or len(right) < 2
