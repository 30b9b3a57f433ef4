"""Is the difference between two texts one slip of the fingers: two neighbouring letters, or a letter and a space, exchanged?"""

import re
from typing import Final

from inference_cache_sidecar.guard.lists import wordset

_REAL_WORDS: Final = frozenset(
    frozenset(pair.split("/"))
    for pair in wordset(
        """
        form/from on/no trail/trial untied/united casual/causal angel/angle dairy/diary quiet/quite lion/loin nuclear/unclear sacred/scared
        able/bale calm/clam cloud/could fired/fried marital/martial sliver/silver signing/singing sign/sing spilt/split tired/tried two/tow
        warp/wrap board/broad barn/bran carve/crave tide/tied field/filed
        salt/slat use/sue used/sued arm/ram ear/era art/rat act/cat apt/pat
        complaint/compliant tiers/tires tires/tries unite/untie cavalry/calvary brain/brian files/flies goal/gaol trials/trails
        angels/angles wraps/warps signs/sings uses/sues arms/rams arts/rats acts/cats am/ma unit/untie crate/carte minute/minuet bowl/blow
        bowls/blows clot/colt flow/fowl perfect/prefect reserve/reverse top/pot who/how felt/flet
        """
    )
)
_ALTERING_FRONTS: Final = ("in", "un", "no", "im", "dis", "ir", "il", "any", "some")
_MIN_LETTERS: Final = 12


def is_slip(one: str, other: str) -> bool:
    """True if the texts are equal but for one exchange of neighbours that makes no other word and touches no digit or sign."""
    left, right = one.lower().split(), other.lower().split()
    first, second = " ".join(left), " ".join(right)
    if first == second or len(first) < _MIN_LETTERS or abs(len(first) - len(second)) > 1:
        return False
    if first.replace(" ", "") == second.replace(" ", ""):
        return _only_spaces(left, right)
    start = _common(first, second)
    exchanged = first[start : start + 2]
    if first[start + 2 :] != second[start + 2 :] or exchanged != second[start : start + 2][::-1] or not _LETTERS.fullmatch(exchanged):
        return False
    return not any(frozenset(pair) in _REAL_WORDS for pair in zip(left, right, strict=False))


_LETTERS: Final = re.compile(r"[^\W\d_]{2}|[^\W\d_][ ,?]|[ ,?][^\W\d_]")


def _only_spaces(left: list[str], right: list[str]) -> bool:
    """A space is lost, won or moved, and no word came of it that a front like "in" turns round."""
    apart = set(left) ^ set(right)
    return not any(word.startswith(_ALTERING_FRONTS) or not word.isalpha() for word in apart)


def _common(one: str, other: str) -> int:
    return next(
        (position for position, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), min(len(one), len(other))
    )
