"""Reads what stands after `sh -c`, if it is one plain command: no pipes, lists, redirections, substitutions or comments. Pure.

Anything more is refused, so that an argument appended to the text is certain to reach that one command.
"""

import re
from collections.abc import Mapping
from typing import Final

from inference_cache_operator.injection.words import MOST_CHARACTERS, Word

_OPERATORS: Final = frozenset(";&|<>()`")
_VARIABLE: Final = re.compile(r"\$(?:(?P<plain>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}|\{[^{}`$]*\}|[@*#?0-9])")


class NotPlain(Exception):
    """The text is more than one plain command."""


def split(text: str, variables: Mapping[str, str | None]) -> tuple[Word, ...]:
    """The command's words as the shell makes them, known variables filled in. Raises NotPlain."""
    return _Scanner(text, variables).words()


def append(text: str, addition: str) -> str:
    """`text`, which `split` accepts, with more words behind its last one; white space and line ends behind that stay where they are."""
    end = _end_of_words(text)
    return f"{text[:end]}{addition}{text[end:]}"


def remove(text: str, addition: str) -> str:
    """Undoes `append`; what is not there is not removed."""
    before, found, after = text.rpartition(addition)
    return before + after if found else text


def _end_of_words(text: str) -> int:
    """Before blanks, line ends and continued lines at the end."""
    end = len(text)
    while end and text[end - 1] in " \t\n":
        end -= 2 if text[end - 1] == "\n" and text[end - 2 : end - 1] == "\\" else 1
    return end


class _Scanner:
    def __init__(self, text: str, variables: Mapping[str, str | None]) -> None:
        self._text = text[: _end_of_words(text)]
        self._variables = variables
        self._at = 0
        self._words: list[Word] = []
        self._word: list[str] | None = None
        self._known = True
        self._room = MOST_CHARACTERS

    def words(self) -> tuple[Word, ...]:
        if "\0" in self._text:
            raise NotPlain
        while self._at < len(self._text):
            self._step(self._text[self._at])
        self._end()
        return tuple(self._words)

    def _step(self, character: str) -> None:
        match character:
            case " " | "\t":
                self._end()
                self._at += 1
            case "\n":
                self._end()
                if self._words:
                    raise NotPlain
                self._at += 1
            case "\\":
                self._escape()
            case "'":
                self._single()
            case '"':
                self._double()
            case "$":
                self._variable(quoted=False)
            case _:
                if character in _OPERATORS or (character == "#" and self._word is None):
                    raise NotPlain
                self._add(character)
                self._at += 1

    def _add(self, text: str, known: bool = True) -> None:
        self._word = [] if self._word is None else self._word
        self._word.append(text)
        self._known = self._known and known

    def _end(self) -> None:
        if self._word is not None:
            self._words.append(Word("".join(self._word), self._known))
        self._word, self._known = None, True

    def _escape(self) -> None:
        following = self._text[self._at + 1 : self._at + 2]
        if not following:
            raise NotPlain
        if following != "\n":
            self._add(following)
        self._at += 2

    def _single(self) -> None:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise NotPlain
        self._add(self._text[self._at + 1 : end])
        self._at = end + 1

    def _double(self) -> None:
        self._add("")
        self._at += 1
        while (character := self._text[self._at : self._at + 1]) != '"':
            match character:
                case "" | "`":
                    raise NotPlain
                case "$":
                    self._variable(quoted=True)
                case "\\":
                    self._escape_in_double()
                case _:
                    self._add(character)
                    self._at += 1
        self._at += 1

    def _escape_in_double(self) -> None:
        following = self._text[self._at + 1 : self._at + 2]
        if following != "\n":
            self._add(following if following in ("$", "`", '"', "\\") else "\\" + following)
        self._at += 2

    def _variable(self, quoted: bool) -> None:
        match = _VARIABLE.match(self._text, self._at)
        if match is None:
            following = self._text[self._at + 1 : self._at + 2]
            if following in ("(", "{", "'", '"', "$", "!", "-", "\\"):
                raise NotPlain
            self._add("$")
            self._at += 1
            return
        self._at = match.end()
        if self._text.startswith("\\\n", self._at):
            # The name goes on in the next line.
            raise NotPlain
        value = self._variables.get(match["plain"] or match["braced"] or "")
        self._room -= len(value or "")
        if value is None or self._room < 0:
            self._add(match[0], known=False)
        elif quoted:
            self._add(value)
        else:
            self._add_split(value)

    def _add_split(self, value: str) -> None:
        """Unquoted, so that blanks part words."""
        for index, part in enumerate(re.split(r"([ \t\n]+)", value)):
            if index % 2:
                self._end()
            elif part:
                self._add(part)
