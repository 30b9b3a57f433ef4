"""What the rules know of one text: its content words, names, numbers, negations, kind of question, who does what.

Made once a text and kept (see `lexical.py`), then compared in pairs.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from inference_cache_sidecar.guard import language, phrases, quantities, question, words
from inference_cache_sidecar.guard.lemma import lemma
from inference_cache_sidecar.guard.lists import wordset
from inference_cache_sidecar.guard.tokens import LITERAL, Kind, Token, tokens


class Chunk(NamedTuple):
    """A run of content words, and the small word that ties it to what stands before it."""

    link: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    english: bool
    question: str
    """See `question.kind`."""
    asks: frozenset[str]
    """The kinds of all its questions."""
    content: tuple[str, ...]
    """Lemmas of content words in order."""
    bag: frozenset[str]
    chunks: tuple[Chunk, ...]
    function: frozenset[str]
    marks: frozenset[str]
    quantifiers: frozenset[str]
    negated: tuple[tuple[str, str, str], ...]
    """For each negator its kind, the word and the content word after it ("" where it stands with the auxiliary), sorted."""
    quantities: tuple[str, ...]
    identifiers: tuple[str, ...]
    names: frozenset[str]
    surfaces: dict[str, str] = field(hash=False)
    """Lemma to the word as written, of words that have another meaning with a capital."""
    persons: str
    """Of the speaker (1) and the one spoken to (2), in order."""
    owned: str
    """Whose things are spoken of: "1" for my, "2" for your."""
    sexes: str
    tense: str
    passive: bool
    """ "was stolen by": an auxiliary "be" before a participle."""
    literals: tuple[str, ...]
    cased: bool
    """The author uses capitals beyond I, so that a small letter says something."""


_TYING: Final = words.FUNCTION | words.MARKS | frozenset(words.NEGATORS)
"""Words that part the chunks of content."""

_PERSON: Final = dict.fromkeys(words.FIRST, "1") | dict.fromkeys(words.SECOND, "2")
_SEX: Final = dict.fromkeys(words.HE, "h") | dict.fromkeys(words.SHE, "s")


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
    names = _names(rest)
    return Reading(
        english=language.is_english(text, all_words),
        question=question.kind(plain),
        asks=question.kinds(plain),
        content=content,
        bag=frozenset(content),
        chunks=chunks,
        function=function & words.FUNCTION,
        quantifiers=frozenset(words.QUANTIFIERS[word] for word in plain if word in words.QUANTIFIERS),
        marks=function & words.MARKS,
        negated=_negated(rest),
        quantities=tuple(numbers),
        identifiers=tuple(sorted(token.text.lower() for token in rest if token.kind is Kind.IDENTIFIER)),
        names=names,
        surfaces={token.text: token.surface for token in rest if token.text in words.CASED and not token.opens},
        persons="".join([_PERSON.get(word, "") for word in plain]),
        owned="".join(sorted({_PERSON[word] for word in function & words.OWN})),
        sexes="".join([_SEX.get(word, "") for word in plain]),
        tense=_tense(plain),
        passive=_passive(plain, names),
        literals=tuple(sorted(literals)),
        cased=any(token.kind is Kind.WORD and token.surface[:1].isupper() and token.surface != "I" for token in found),
    )


def _has_literal(text: str) -> bool:
    return "`" in text or '"' in text or "“" in text


def _chunks(sentence: list[Token]) -> tuple[tuple[str, ...], tuple[Chunk, ...]]:
    content: list[str] = []
    chunks: list[Chunk] = []
    link = ""
    run: list[str] = []
    for token in sentence:
        if token.kind is Kind.WORD and token.text in _TYING:
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


def _negated(sentence: list[Token]) -> tuple[tuple[str, str, str], ...]:
    found = []
    for position, token in enumerate(sentence):
        if token.text in words.NEGATORS:
            scope = ("", "") if token.surface == "n't" else _scope(sentence[position + 1 : position + 8])
            found.append((words.NEGATORS[token.text], *scope))
    return tuple(sorted(found))


def _scope(after: list[Token]) -> tuple[str, str]:
    later = [token.text for token in after if token.kind is Kind.WORD and token.text not in words.ARTICLES]
    return (lemma(later[0]) if later else "", lemma(next((word for word in later if word not in words.FUNCTION), "")))


def _names(sentence: list[Token]) -> frozenset[str]:
    """Capitalised words (where capitals say something), acronyms, and names known to be written without."""
    inner = [token for token in sentence if token.kind is Kind.WORD and not token.opens]
    capital = [token for token in inner if token.surface[:1].isupper() and token.surface != "I"]
    titled = len(capital) > 3 and len(capital) * 4 > len(inner) * 3
    found = set() if titled else {lemma(token.text) for token in capital}
    found |= {lemma(token.text) for token in sentence if token.opens and _is_acronym(token.surface) and not titled}
    found |= {lemma(token.text) for token in sentence if token.text in words.COUNTRIES_AND_CITIES}
    return frozenset(found - words.FUNCTION)


_BE: Final = wordset("is are was were be been being am")


def _passive(plain: list[str], names: frozenset[str]) -> bool:
    if not _BE.intersection(plain):
        return False
    participle = next(
        (at for at, word in enumerate(plain) if at and (word.endswith("ed") or word in _PARTICIPLES) and word not in names), None
    )
    if participle is None:
        return False
    return plain[participle + 1 : participle + 2] == ["by"] or plain[participle - 1] in _BE


_PARTICIPLES: Final = wordset(
    """
    made sold bought kept left lost found built sent paid told held taught caught brought thought won hit cut put read led met fed
    done gone seen used understood struck hung shot spent lent felt heard worn torn drawn thrown known grown shown sung begun drunk
    run taken given written stolen broken spoken chosen eaten driven frozen beaten hidden forgotten fallen proven risen ridden
    shaken bitten woven awoken blown flown mown sewn sworn born
    """
)


def _is_acronym(surface: str) -> bool:
    return len(surface) > 1 and surface.isupper()


def _tense(plain: list[str]) -> str:
    """Of the first auxiliary: past, present, or future (of "be" alone: "will you", "do you" ask the same); else ""."""
    first = next((word for word in plain if word in words.AUXILIARIES or word in words.FUTURE), "")
    if first in words.FUTURE:
        return "future" if "be" in plain else ""
    return "past" if first in words.PAST else "present" if first in words.PRESENT else ""
