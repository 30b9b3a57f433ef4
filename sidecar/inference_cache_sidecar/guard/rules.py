"""One function a rule: True if the two readings differ in what the rule is about. All are symmetric."""

from inference_cache_sidecar.guard import question as questions
from inference_cache_sidecar.guard import words
from inference_cache_sidecar.guard.lemma import lemma
from inference_cache_sidecar.guard.opposites import opposed
from inference_cache_sidecar.guard.quantities import UNSURE_ONE
from inference_cache_sidecar.guard.reading import Reading

_TIMES = frozenset(map(lemma, words.TIMES))


def foreign(one: Reading, other: Reading) -> bool:
    return not (one.english and other.english)


def literal(one: Reading, other: Reading) -> bool:
    return one.literals != other.literals and bool(one.literals) and bool(other.literals)


def identifier(one: Reading, other: Reading) -> bool:
    return one.identifiers != other.identifiers


def number(one: Reading, other: Reading) -> bool:
    left, right = _values(one), _values(other)
    return left != right and _sure(left) != _sure(right)


def unit(one: Reading, other: Reading) -> bool:
    left, right = one.quantities, other.quantities
    return left != right and [value for value in left if UNSURE_ONE not in value] != [value for value in right if UNSURE_ONE not in value]


def _values(reading: Reading) -> list[str]:
    return [quantity.split(" ")[0].replace(UNSURE_ONE, "1") for quantity in reading.quantities]


def _sure(reading: list[str]) -> list[str]:
    return [value for value in reading if value != "1"]


def negation(one: Reading, other: Reading) -> bool:
    if [kind for kind, *_ in one.negated] != [kind for kind, *_ in other.negated]:
        return True
    scopes = zip(one.negated, other.negated, strict=True)
    return any(_apart(left, right, one, other) for (_, *near), (_, *far) in scopes for left, right in zip(near, far, strict=True))


def _apart(left: str, right: str, one: Reading, other: Reading) -> bool:
    """What is negated here stands there as well, but not negated."""
    return bool(left and right) and left != right and left in other.bag | other.function and right in one.bag | one.function


def opposite(one: Reading, other: Reading) -> bool:
    left, right = one.bag - other.bag, other.bag - one.bag
    left |= one.marks - other.marks
    right |= other.marks - one.marks
    return any(opposed(word, against) for word in left for against in right)


def date(one: Reading, other: Reading) -> bool:
    return bool((one.bag ^ other.bag) & _TIMES)


def entity(one: Reading, other: Reading) -> bool:
    apart = one.bag ^ other.bag
    if apart & (one.names | other.names):
        return True
    return cased_apart(one, other)


def cased_apart(one: Reading, other: Reading) -> bool:
    """Both authors write capitals, and one writes "Turkey" where the other writes "turkey"."""
    if not (one.cased and other.cased):
        return False
    return any(other.surfaces.get(word, surface)[:1].isupper() != surface[:1].isupper() for word, surface in one.surfaces.items())


def direction(one: Reading, other: Reading) -> bool:
    left, right = one.function - other.function, other.function - one.function
    return any(opposed(word, against) for word in left for against in right)


def role(one: Reading, other: Reading) -> bool:
    return one.sexes != other.sexes or _persons_differ(one, other)


def _persons_differ(one: Reading, other: Reading) -> bool:
    left, right = one.persons, other.persons
    if left == right or one.content != other.content or len(left) != len(right):
        return False
    if len(set(left)) == 2:
        return True
    return one.owned != other.owned and not one.question.startswith("how")


def question(one: Reading, other: Reading) -> bool:
    return not questions.compatible(one.question, other.question, one.asks, other.asks)


_OF_THEIR_TIME = ("yes-no", "who", "where", "when")
"""Questions whose answer is another one at another time."""


def tense(one: Reading, other: Reading) -> bool:
    if one.tense == other.tense or not one.tense or not other.tense or one.passive or other.passive:
        return False
    return one.question in _OF_THEIR_TIME or "future" in (one.tense, other.tense)


def qualifier(one: Reading, other: Reading) -> bool:
    if one.marks != other.marks:
        return True
    left, right = one.quantifiers - other.quantifiers, other.quantifiers - one.quantifiers
    return bool(left and right)
