"""Who does what to whom: may the same words in another order mean the same?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from inference_cache_sidecar.guard.lemma import lemma
from inference_cache_sidecar.guard.lists import wordset
from inference_cache_sidecar.guard.reading import Chunk, Reading

_FREE: Final = frozenset(("and", "or", "&", "nor", "vs", "versus", "plus", ","))
"""Links whose two sides may change places."""

_MAX_PHRASES: Final = 16
"""Longer rearrangements are not searched for: they count as another order."""

Tied = tuple[str, tuple[str, ...]]
"""A phrase with the small word before it."""

_SYMMETRIC: Final = frozenset(
    lemma(word)
    for word in wordset(
        """
        married engaged related similar equal identical equivalent connected linked close near next adjacent acquainted acquaintance friend
        sibling brother sister cousin twin partner neighbor neighbour spouse colleague roommate dating difference differ compare comparison
        compatible separate distance distant meet agree disagree between parallel perpendicular interchangeable tied relationship relation
        connection similarity same correlated associated classmate teammate coworker rival divorced better versus compared
        """
    )
)
"""Relations that hold both ways, and questions that name both sides ("which is better, A or B")."""


def reordered(one: Reading, other: Reading) -> bool:
    """The words that both have stand in another order, or what ties them gives them other roles."""
    if one.bag != other.bag:
        return _reordered(*_shared(one, other))
    return _reordered(one, other)


def _shared(one: Reading, other: Reading) -> tuple[Reading, Reading]:
    shared = one.bag & other.bag
    return _only(one, shared), _only(other, shared)


def _only(reading: Reading, shared: frozenset[str]) -> Reading:
    chunks = (Chunk(chunk.link, tuple(word for word in chunk.words if word in shared)) for chunk in reading.chunks)
    return replace(
        reading, content=tuple(word for word in reading.content if word in shared), bag=shared, chunks=tuple(filter(_words, chunks))
    )


def _words(chunk: Chunk) -> tuple[str, ...]:
    return chunk.words


def _reordered(one: Reading, other: Reading) -> bool:
    if one.content == other.content and one.passive == other.passive and _ties(one) == _ties(other):
        return False
    if one.passive != other.passive:
        return _active(one) != _active(other)
    if one.content != other.content and len(set(one.quantities)) > 1:
        return True
    left, right = _settled(one.chunks), _settled(other.chunks)
    if (left == right and _ties(one) == _ties(other)) or _moved(_tied(one), _tied(other)):
        return False
    if one.bag & _SYMMETRIC and "than" not in one.function | other.function:
        return not _exchanged(one.content, other.content)
    return len(left) == len(right) or "than" in one.function | other.function or _named(one) != _named(other)


def _moved(one: list[Tied], other: list[Tied]) -> bool:
    """One phrase stands elsewhere, with what ties it: "to London from Paris", "in 2019 who won" """
    start, end = _margins(one, other)
    left, right = one[start : len(one) - end], other[start : len(other) - end]
    return len(left) == len(right) and any(left[cut:] + left[:cut] == right for cut in range(1, min(len(left), _MAX_PHRASES)))


def _exchanged(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Two runs of words have changed places, and nothing else."""
    start, end = _margins(one, other)
    left, right = one[start : len(one) - end], other[start : len(other) - end]
    if len(left) != len(right):
        return False
    reach = range(1, min(len(left), _MAX_PHRASES))
    return any(
        left[-last:] + left[first : len(left) - last] + left[:first] == right
        for first in reach
        for last in reach
        if first + last <= len(left)
    )


def _margins(one: Sequence[object], other: Sequence[object]) -> tuple[int, int]:
    """How many items the two have in common at the start, and at the end behind those."""
    short = min(len(one), len(other))
    start = next((at for at in range(short) if one[at] != other[at]), short)
    end = next((at for at in range(short - start) if one[-1 - at] != other[-1 - at]), short - start)
    return start, end


def _ties(reading: Reading) -> list[tuple[str, ...]]:
    return sorted(chunk.words for chunk in reading.chunks if chunk.link in ("from", "than", "by"))


def _settled(chunks: tuple[Chunk, ...]) -> list[tuple[str, ...]]:
    """The chunks' words, with those that a free link ties together in alphabetical order."""
    groups: list[list[tuple[str, ...]]] = []
    for chunk in chunks:
        if groups and chunk.link in _FREE:
            groups[-1].append(chunk.words)
        else:
            groups.append([chunk.words])
    return [words for group in groups for words in sorted(group)]


def _tied(reading: Reading) -> list[Tied]:
    return [(chunk.link, chunk.words) for chunk in reading.chunks]


def _named(reading: Reading) -> list[str]:
    return [word for word in reading.content if word in reading.names]


def _active(reading: Reading) -> list[str]:
    """Content words as the active voice orders them: what follows "by" does it, what stands before suffers it."""
    if not reading.passive:
        return list(reading.content)
    at = next((position for position, chunk in enumerate(reading.chunks) if chunk.link == "by"), None)
    before = [word for chunk in reading.chunks[:at] for word in chunk.words]
    agent = [word for chunk in (reading.chunks[at : at + 1] if at is not None else ()) for word in chunk.words]
    after = [word for chunk in (reading.chunks[at + 1 :] if at is not None else ()) for word in chunk.words]
    return agent + before[-1:] + before[:-1] + after
