"""The canonical prompt: what two spellings of one question have in common.

The sidecar's query parser takes the exact tier's digest over it, the embedder embeds it. What the rules fold may still
hide a difference (a lower-cased name), so a match that was not identical byte for byte passes the guard as well.
"""

import re
from dataclasses import dataclass
from typing import Final

NORMALISER_VERSION: Final = 2
"""Raised whenever a prompt's canonical form changes: digests and vectors of another version are never compared."""


MAX_LENGTH: Final = 16_384
"""Characters. A longer prompt is its own canonical form: it is hardly typed twice in two ways, and folding takes time on the event loop."""


@dataclass(frozen=True, slots=True)
class Normalize:
    """Which differences between two spellings are folded (`spec.exact.normalize`)."""

    whitespace: bool = True
    """Runs of white space, and a single line break; not in code, columns or indented text."""
    case: bool = True
    """Capitals of ordinary words; not in code, quotations, acronyms or identifiers."""
    punctuation: bool = True
    """What ends the last sentence; nothing inside a sentence."""


def canonical(prompt: str, rules: Normalize) -> str:
    """The prompt with the differences of `rules` folded; the same again when applied twice. Linear in the prompt's length."""
    if len(prompt) > MAX_LENGTH:
        return prompt
    text = prompt.strip() if rules.whitespace else prompt
    parts = _LITERAL.split(text) if "`" in text or '"' in text or "~~~" in text else [text]
    plain = "`".join(parts[::2]) if len(parts) > 1 else text
    if _is_code(plain):
        return _without_margins(prompt) if rules.whitespace else prompt
    if rules.whitespace:
        # Those of the ending go with it.
        keep_breaks = "\n" in plain and _breaks(plain[: _ending(plain)] if rules.punctuation else plain) > 1
        parts[::2] = [_fold_space(part, keep_breaks) for part in parts[::2]]
    if rules.case:
        shouted = _is_shouted(plain)
        parts[::2] = [_fold_words(part, shouted) for part in parts[::2]]
    if rules.punctuation and parts[-1]:
        before = parts[-2][-1] if len(parts) > 1 else ""
        parts[-1] = _without_ending(before + parts[-1], rules.whitespace)[len(before) :]
    return "".join(parts)


_LITERAL: Final = re.compile(r'(`{3,}.*?(?:`{3,}|\Z)|~~~.*?(?:~~~|\Z)|``.*?``|`[^`]*`|"[^"]*")', re.DOTALL)
"""Fenced code (an open fence runs to the end), code in a line, a quotation. Blind to white space, so folding moves no border."""

_CODE_MARK: Final = re.compile(r"[{}=<>\\]|;\n")
"""A text with one of these is code or a formula: every space and capital may count."""

_SPACE: Final = re.compile(r"\s+")
_SPACE_KEPT: Final = re.compile(r"(\s+)")
_BEFORE_WORD: Final = "\"'(“‘[¿¡"
_JOINTS: Final = str.maketrans("", "", "'’-")

_ENDING: Final = ".!?…。！？؟।"
_AFTER_WORD: Final = "\"')”’],;:" + _ENDING
_OPERATORS: Final = frozenset("*\\|^/=<>&~@([{,;:-_")
"""After one of these a final mark belongs to a pattern, a path or a list, not to the sentence."""
_FACTORIAL_OR_SERIES: Final = re.compile(r"!+|\.\.+|…")


def _is_code(plain: str) -> bool:
    return _CODE_MARK.search(plain) is not None or ("\n" in plain and _is_laid_out(plain.strip()))


def _is_laid_out(text: str) -> bool:
    """Indented lines or columns."""
    first, *others = text.split("\n")
    return "\t" in first or any(line.strip() and (line[0] in " \t" or "\t" in line.strip()) for line in others)


def _without_margins(prompt: str) -> str:
    """Only blank lines before and white space after go: the first line's indentation stays."""
    body = prompt.rstrip()
    start = len(body) - len(body.lstrip())
    return body[body.rfind("\n", 0, start) + 1 :]


def _ending(text: str) -> int:
    """Where final marks and white space begin."""
    end = len(text)
    while end and (text[end - 1] in _ENDING or text[end - 1].isspace()):
        end -= 1
    return end


def _breaks(text: str) -> int:
    return sum("\n" in run for run in _SPACE.findall(text))


def _fold_space(text: str, keep_breaks: bool) -> str:
    """A single line break is a wrapped sentence; several are a list or verse, where it matters what stands on which line."""
    if keep_breaks:
        return _SPACE.sub(lambda run: "\n" if "\n" in run[0] else " ", text)
    folded = " ".join(text.split())
    before = " " if text[:1].isspace() else ""
    return f"{before}{folded} " if folded and text[-1].isspace() else before + folded


def _is_shouted(text: str) -> bool:
    """Capitals tell nothing in a text that has nothing else."""
    return text.isupper() and len(text.split(None, 3)) > 2


def _fold_words(text: str, shouted: bool) -> str:
    """Lower-case the words whose capital comes from their place in the sentence or from spelling alone."""
    if text == text.lower():
        return text
    words = _SPACE_KEPT.split(text)
    words[::2] = [word if word.islower() else _fold_word(word, shouted) for word in words[::2]]
    if words[0] == "A" and len(words) > 1:
        # An article; alone it names something.
        words[0] = "a"
    return "".join(words)


def _fold_word(word: str, shouted: bool) -> str:
    """Acronyms, mixed case, and whatever holds a digit or a sign are kept; so is a lone capital, which names something."""
    if word.isalpha() and word[1:].islower():
        return word.lower()
    core = word.lstrip(_BEFORE_WORD).rstrip(_AFTER_WORD)
    letters = core.translate(_JOINTS)
    if not letters.isalpha() or core[0] == "-":
        return word
    if shouted or core == "I" or core.startswith(("I'", "I’")):
        return word.lower()
    plain = len(letters) > 1 and all(part[1:] == part[1:].lower() for part in core.split("-"))
    return word.lower() if plain else word


def _without_ending(text: str, fold_space: bool) -> str:
    """Full stops, question and exclamation marks after the last word; not the mark of a factorial, a series or a pattern."""
    body = text.rstrip(_ENDING + " \n" if fold_space else _ENDING)
    if not body or body[-1] in _OPERATORS:
        return text
    alone = body[-1].isdigit() or (body[-1].isalpha() and not body[-2:-1].isalnum())
    mark = _FACTORIAL_OR_SERIES.match(text, len(body)) if alone else None
    return text[: mark.end()] if mark else body
