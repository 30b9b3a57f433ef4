"""Phrases that are one word to the rules, and polite openings that are none."""

from typing import Final

from inference_cache_sidecar.guard import words
from inference_cache_sidecar.guard.tokens import Kind, Token

_PHRASES: Final = """
get rid of = remove
log in = login
sign in = login
log into = login
sign into = login
log on = login
log out = logout
sign out = logout
log off = logout
sign up = register
sign up for = register
set up = setup
turn on = enable
turn off = disable
switch on = enable
switch off = disable
look for = seek
look up = seek
look like = resemble
a lot of = many
lots of = many
in order to = to
so as to = to
as well as = and
such as = like
used to = formerly
use to = formerly
going to = will
able to = can
rather than = instead
other than = except
apart from = except
aside from = except
except for = except
everything but = except
all but = except
anything but = not
nothing but = only
instead of = instead
out of = outside
no longer = formerly
how come = why
what for = why
united states of america = us
united states = us
united kingdom = uk
great britain = uk
find out = discover
give up = quit
carry out = perform
put on = wear
take off = undress
as soon as = when
due to = because
because of = because
each other = mutually
one another = mutually
at least = minimally
at most = maximally
less than = below
fewer than = below
more than = above
greater than = above
older than = above
at the same time = simultaneously
at once = simultaneously
in fact = really
of course = really
as a matter of fact = really
by the way = really
in reality = really
under = below
over = above
beneath = below
why or why not = why
or why not = why
if so why = why
or not . = .
or not ? = ?
or else = otherwise
no one = nobody
per cent = percent
these days = nowadays
right now = nowadays
at the moment = nowadays
machine learning = machine_learning
artificial intelligence = ai
according to = according
"""

_OPENINGS: Final = """
can you tell me
could you tell me
can you please tell me
could you please tell me
would you tell me
can you explain
could you explain
can you explain to me
could you please explain
can you please explain
can anyone tell me
can someone tell me
can someone explain
please tell me
tell me
do you know
i want to know
i would like to know
i need to know
i was wondering
i do not know
i am not sure
i not sure
i would like to
i want to
i need to
i am trying to
i wish to
i am wondering
i wonder
any idea
please explain
explain
explain to me
please describe
describe
can you help me
can you recommend
can you suggest
can you name
can you list
can you give me
could you recommend
can anyone recommend
can anyone suggest
are there any = what
are there = what
is there any = what
is there a = what
is there an = what
what do i need to do to = how
what do i have to do to = how
what must i do to = how
give me
list
could you help me
please help me
help me
is there any way to = howcan
is there any way i can = howcan
is there a way i can = howcan
is there a way to = howcan
is it possible to = howcan
is it possible for me to = howcan
would it be possible to = howcan
"""


def _phrases(lines: str) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    table: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for line in lines.strip().splitlines():
        phrase, _, meaning = line.partition(" = ")
        parts = tuple(phrase.split())
        table.setdefault(parts[0], []).append((parts, meaning))
    return {first: sorted(entries, key=lambda entry: -len(entry[0])) for first, entries in table.items()}


_TABLE: Final = _phrases(_PHRASES)
_OPENING_TABLE: Final = _phrases(_OPENINGS)
_FIRST: Final = frozenset(_TABLE)


def joined(sentence: list[Token]) -> list[Token]:
    """The tokens with every known phrase as one word."""
    if not any(token.text in _FIRST for token in sentence):
        return sentence
    result: list[Token] = []
    position = 0
    while position < len(sentence):
        entry = _at(sentence, position, _TABLE) if sentence[position].text in _FIRST else None
        if entry is None:
            result.append(sentence[position])
            position += 1
        else:
            result.append(Token(Kind.WORD, entry[1], entry[1], "", True))
            position += len(entry[0])
    return result


def without_opening(sentence: list[Token]) -> list[Token]:
    """The tokens after greetings and "can you tell me"; all of them if nothing else would be left."""
    start = 0
    while start < len(sentence) and (sentence[start].text in words.GREETINGS or sentence[start].kind is Kind.STOP):
        start += 1
    entry = _at(sentence, start, _OPENING_TABLE)
    if entry is not None:
        rest = sentence[start + len(entry[0]) :]
        return [Token(Kind.WORD, entry[1], entry[1], "", True), *rest] if entry[1] else rest or sentence
    return sentence[start:] or sentence


def _at(sentence: list[Token], position: int, table: dict[str, list[tuple[tuple[str, ...], str]]]) -> tuple[tuple[str, ...], str] | None:
    if position >= len(sentence):
        return None
    for entry in table.get(sentence[position].text, ()):
        size = len(entry[0])
        if tuple(token.text for token in sentence[position : position + size]) == entry[0]:
            return entry
    return None
