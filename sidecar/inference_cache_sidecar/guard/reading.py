"""What the rules know of one text: its content words, names, numbers, negations, kind of question, who does what.

Made once a text and kept (see `lexical.py`), then compared in pairs.
"""

from dataclasses import dataclass, field
from typing import Final

from inference_cache_sidecar.guard import language, phrases, question, quantities, words
from inference_cache_sidecar.guard.lemma import lemma
from inference_cache_sidecar.guard.tokens import LITERAL, Kind, Token, tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of content words, and the small word that ties it to what stands before it."""

    link: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    english: bool
    question: str
    """See `question.kind`."""
    content: tuple[str, ...]
    """Lemmas of content words in order."""
    bag: frozenset[str]
    chunks: tuple[Chunk, ...]
    function: frozenset[str]
    marks: frozenset[str]
    negated: tuple[str, ...]
    """For each negator the content word after it."""
    quantities: tuple[str, ...]
    identifiers: tuple[str, ...]
    names: frozenset[str]
    surfaces: dict[str, str] = field(hash=False)
    """Lemma to the word as written, of words that have another meaning with a capital."""
    persons: str
    """Of the speaker (1) and the one spoken to (2), in order."""
    sexes: str
    tense: str
    literals: tuple[str, ...]
    cased: bool
    """The author uses capitals beyond I, so that a small letter says something."""


_WEAK: Final = words.FUNCTION - words.MARKS


def read(text: str) -> Reading:
    """The reading of one text. Never raises; linear."""
    literals = tuple(" ".join("".join(found).split()) for found in LITERAL.findall(text)) if _has_literal(text) else ()
    found = tokens(text.replace("`", " ") if literals else text)
    all_words = [token.text for token in found if token.kind is Kind.WORD]
    sentence = phrases.joined(phrases.without_opening(found))
    numbers, rest = quantities.quantities(sentence)
    plain = [token.text for token in rest if token.kind is Kind.WORD]
    content, chunks = _chunks(rest)
    function = frozenset(plain)
    return Reading(
        english=language.is_english(text, all_words),
        question=question.kind(plain),
        content=content,
        bag=frozenset(content),
        chunks=chunks,
        function=function & words.FUNCTION,
        marks=function & words.MARKS,
        negated=_negated(rest),
        quantities=tuple(numbers),
        identifiers=tuple(sorted(token.text.lower() for token in rest if token.kind is Kind.IDENTIFIER)),
        names=_names(rest),
        surfaces={token.text: token.surface for token in rest if token.text in words.CASED},
        persons="".join(_person(word) for word in plain),
        sexes="".join("h" if word in words.HE else "s" for word in plain if word in words.HE or word in words.SHE),
        tense=_tense(plain),
        literals=tuple(sorted(literals)),
        cased=any(token.kind is Kind.WORD and token.surface[:1].isupper() and token.surface != "I" for token in found),
    )


def _has_literal(text: str) -> bool:
    return "`" in text or '"' in text or "“" in text


def _chunks(sentence: list[Token]) -> tuple[tuple[str, ...], tuple[Chunk, ...]]:
    content: list[str] = []
    chunks: list[Chunk] = []
    link, run = "", []
    for token in sentence:
        if token.kind is Kind.WORD and (token.text in _WEAK or token.text in words.NEGATORS or token.text in words.MARKS):
            if run:
                chunks.append(Chunk(link, tuple(run)))
                link, run = "", []
            link = token.text if token.text in words.PREPOSITIONS or token.text in words.CONJUNCTIONS else link
        elif token.kind is Kind.STOP:
            if run:
                chunks.append(Chunk(link, tuple(run)))
                link, run = "", []
            link = "," if token.text == "," else ""
        else:
            word = lemma(token.text) if token.kind is Kind.WORD else token.text.lower()
            if token.text in words.ADVERBS:
                continue
            run.append(word)
            content.append(word)
    if run:
        chunks.append(Chunk(link, tuple(run)))
    return tuple(content), tuple(chunks)


def _negated(sentence: list[Token]) -> tuple[str, ...]:
    found = []
    for position, token in enumerate(sentence):
        if token.text in words.NEGATORS:
            following = (later.text for later in sentence[position + 1 :] if later.kind is Kind.WORD and later.text not in words.FUNCTION)
            found.append(lemma(next(following, "")))
    return tuple(sorted(found))


def _names(sentence: list[Token]) -> frozenset[str]:
    """Capitalised words (where capitals say something), acronyms, and names known to be written without."""
    capital = [token for token in sentence if token.kind is Kind.WORD and token.surface[:1].isupper() and token.surface != "I"]
    count = sum(token.kind is Kind.WORD for token in sentence)
    titled = len(capital) * 2 > count and count > 3
    found = {lemma(token.text) for token in capital if not titled and not token.opens}
    found |= {lemma(token.text) for token in capital if len(token.surface) > 1 and token.surface.isupper() and not titled}
    found |= {lemma(token.text) for token in sentence if token.text in words.COUNTRIES_AND_CITIES}
    return frozenset(found - words.FUNCTION)


def _person(word: str) -> str:
    return "1" if word in words.FIRST else "2" if word in words.SECOND else ""


def _tense(plain: list[str]) -> str:
    """Of the first auxiliary: "past", "future", or "" for everything else."""
    first = next((word for word in plain if word in words.AUXILIARIES or word in words.FUTURE), "")
    return "past" if first in words.PAST else "future" if first in words.FUTURE else ""
