"""Splits a text into the tokens that the rules read: words, numbers, identifiers, and literals that must be equal as they stand.

Called by `reading.py`. Linear: every expression scans each character a bounded number of times.
"""

import re
from enum import Enum
from typing import Final, NamedTuple

from inference_cache_sidecar.guard import numbers
from inference_cache_sidecar.guard.words import KNOWN_ABBREVIATIONS


class Kind(Enum):
    WORD = "word"
    NUMBER = "number"
    IDENTIFIER = "identifier"
    STOP = "stop"
    """The end of a sentence or clause."""


class Token(NamedTuple):
    """A tuple, since a question makes a dozen of them on the way to a hit."""

    kind: Kind
    text: str
    """A word in lower case; a number's value; an identifier as it stands."""
    surface: str
    unit: str = ""
    """Of a number."""
    opens: bool = False
    """First of its sentence, so that a capital says nothing."""


LITERAL: Final = re.compile(r'```(.*?)(?:```|\Z)|``(.*?)``|`([^`]*)`|"([^"]*)"|“([^”]*)”', re.DOTALL)
_LEFT: Final = "\"'(“‘’[`{*"
_RIGHT: Final = "\"')”’],.;:!?…`}*"
_JOINED: Final = re.compile(r"[-–—/,;:()&]+|\.\.+")
_ACRONYM: Final = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_DECORATION: Final = frozenset("-–—/|•·*_~")
_CONTRACTIONS: Final = """
can't = can not
won't = will not
shan't = shall not
cannot = can not
ain't = is not
i'm = i
let's = let
gonna = will
wanna = want
unable = not able
cant = can not
dont = do not
doesnt = does not
didnt = did not
isnt = is not
arent = are not
wasnt = was not
hasnt = has not
havent = have not
shouldnt = should not
wouldnt = would not
couldnt = could not
whats = what is
hows = how is
"""
_CONTRACTED: Final = {
    short: tuple(long.split()) for short, _, long in (line.partition(" = ") for line in _CONTRACTIONS.strip().splitlines())
}
_ENCLITICS: Final = {"n't": "not", "'ll": "will", "'ve": "have", "'re": "are", "'d": "would", "'m": "am"}
_NEGATIVE_FRONT: Final = frozenset(("non", "anti", "un", "pre", "post", "re", "co", "de", "e", "ex", "self", "sub", "mid", "multi"))


def tokens(text: str) -> list[Token]:
    found: list[Token] = []
    opens = True
    for piece in text.split():
        if piece.isalpha():
            _word(piece, opens, found)
            opens = False
            continue
        core = piece.lstrip(_LEFT).rstrip(_RIGHT)
        if core:
            _core(core, piece, opens, found)
            if core[-1].isdigit() and core + "!" in piece:
                found.append(Token(Kind.IDENTIFIER, "!", "!"))
        ends = core.lower() not in KNOWN_ABBREVIATIONS and piece[-1] in ".?!:;,)" if core else False
        opens = ends and piece[-1] in ".?!:"
        if ends:
            found.append(Token(Kind.STOP, piece[-1], ""))
    return found


def _word(piece: str, opens: bool, found: list[Token]) -> None:
    word = piece.lower()
    parts = _CONTRACTED.get(word)
    if parts is None:
        found.append(Token(Kind.WORD, word, piece, "", opens))
    else:
        found.extend(Token(Kind.WORD, part, "n't" if part == "not" else part, "", True) for part in parts)


def _core(core: str, piece: str, opens: bool, found: list[Token]) -> None:
    if core.isalpha():
        _word(core, opens, found)
    elif "'" in core or "’" in core:
        _apostrophe(core.replace("’", "'"), opens, found)
    elif any(char.isdigit() for char in core):
        _with_digits(core, piece, found)
    elif _JOINED.sub("", core).isalpha():
        _compound(core, opens, found)
    elif _ACRONYM.fullmatch(core):
        _word(core.replace(".", ""), opens, found)
    elif core == "&":
        _word("and", True, found)
    elif core not in _DECORATION:
        found.append(Token(Kind.IDENTIFIER, core, core))


def _apostrophe(core: str, opens: bool, found: list[Token]) -> None:
    lower = core.lower()
    if lower in _CONTRACTED:
        _word(core, opens, found)
        return
    for enclitic, full in _ENCLITICS.items():
        if lower.endswith(enclitic) and lower[: -len(enclitic)].isalpha():
            _word(core[: -len(enclitic)], opens, found)
            found.append(Token(Kind.WORD, full, enclitic, "", True))
            return
    base = core[: lower.rfind("'")] if lower.endswith(("'s", "'")) else core.replace("'", "")
    if base.isalpha():
        _word(base, opens, found)
    elif base:
        found.append(Token(Kind.IDENTIFIER, base, base))


def _with_digits(core: str, piece: str, found: list[Token]) -> None:
    signed = "-" + core if piece[:1] in "(" and core[:1] == "-" else core
    number = numbers.written(signed)
    if number is not None:
        found.append(Token(Kind.NUMBER, number[0], core, number[1]))
        return
    span = numbers.RANGE.fullmatch(core)
    if span is not None:
        found.extend(Token(Kind.NUMBER, end, end) for end in span.groups())
        return
    first, *others = core.split("-")
    number = numbers.written(first) if others and all(part.isalpha() for part in others) else None
    if number is not None and not number[1]:
        found.append(Token(Kind.NUMBER, number[0], first))
        for part in others:
            _word(part, False, found)
        return
    found.append(Token(Kind.IDENTIFIER, core, core))


def _compound(core: str, opens: bool, found: list[Token]) -> None:
    """ "short-term" is two words, "e-mail" and "non-smoker" are one, "and/or" is two with a stroke between."""
    front, dash, rest = core.partition("-")
    if dash and front.lower() in _NEGATIVE_FRONT and rest.isalpha():
        found.append(Token(Kind.WORD, (front + rest).lower(), front + rest, "", opens))
        return
    for position, part in enumerate(part for part in _JOINED.split(core) if part):
        if position and ("/" in core or "&" in core):
            found.append(Token(Kind.WORD, "or" if "/" in core else "and", "", "", True))
        _word(part, opens and not position, found)
