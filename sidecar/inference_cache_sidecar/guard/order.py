"""Who does what to whom: may the same words in another order mean the same?"""

from typing import Final

from inference_cache_sidecar.guard.reading import Chunk, Reading

_FREE: Final = frozenset(("and", "or", "&", "nor", "vs", "versus", "plus", ","))
"""Links whose two sides may change places."""

SYMMETRIC: Final = frozenset(
    "marry engage relate similar equal identical equivalent connect link close near next adjacent acquaint acquaintance friend sibling brother "
    "sister cousin twin partner neighbor neighbour spouse colleague roommate date difference differ compare comparison compatible separate "
    "distance distant meet agree disagree together between parallel perpendicular interchangeable tie relationship relation connection "
    "similarity same correlate correlation associate classmate teammate coworker rival divorce identic engaged related married".split()
)
"""Relations that hold both ways."""


def reordered(one: Reading, other: Reading) -> bool:
    """The same words, but the order gives them other roles."""
    if one.content == other.content and _links(one) == _links(other):
        return False
    left, right = _settled(one.chunks), _settled(other.chunks)
    if left == right:
        return False
    if one.bag & SYMMETRIC and "than" not in one.function:
        return False
    return _roles(one) != _roles(other)


def _links(reading: Reading) -> list[str]:
    return [chunk.link for chunk in reading.chunks if chunk.link in ("from", "to", "than", "by")]


def _settled(chunks: tuple[Chunk, ...]) -> list[tuple[str, ...]]:
    """The chunks' words, with those that a free link ties together in alphabetical order."""
    groups: list[list[tuple[str, ...]]] = []
    for chunk in chunks:
        if groups and chunk.link in _FREE:
            groups[-1].append(chunk.words)
        else:
            groups.append([chunk.words])
    return [words for group in groups for words in sorted(group)]


def _roles(reading: Reading) -> object:
    return sorted((chunk.link, chunk.words) for chunk in reading.chunks)


def reordered_words(one: Reading, other: Reading) -> bool:
    return one.bag == other.bag and reordered(one, other)
