"""Reads vLLM's arguments: the last one of a name counts, underscores are hyphens, `--name value` and `--name=value` are one. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from inference_cache_operator.injection.words import Word

_VALUELESS: Final = ("--enable-", "--disable-", "--no-", "--trust-remote-code", "--enforce-eager", "--async-", "--skip-", "--use-")


def flag_of(word: Word) -> str | None:
    """The option's name, with hyphens; None for a value or positional argument."""
    if not word.text.startswith("--") or word.text == "--":
        return None
    return word.text.split("=", 1)[0].replace("_", "-")


def flags(arguments: Sequence[Word]) -> Iterator[str]:
    return (name for word in arguments if (name := flag_of(word)) is not None)


def last_value(arguments: Sequence[Word], *names: str) -> Word | None:
    """None where no such option stands; an empty word where one stands without a value."""
    found: Word | None = None
    for index, word in enumerate(arguments):
        if flag_of(word) not in names:
            continue
        _, equals, value = word.text.partition("=")
        following = arguments[index + 1] if index + 1 < len(arguments) else Word("")
        found = Word(value, word.known) if equals else following
    return found


def unknown_words(arguments: Sequence[Word]) -> Iterator[Word]:
    """Those that might be any option once the container runs: neither an option's value nor the model's name in front."""
    for index, word in enumerate(arguments):
        if word.known or not word.text.startswith("$") or index == 0:
            continue
        before = flag_of(arguments[index - 1])
        if before is None or "=" in arguments[index - 1].text or before.startswith(_VALUELESS):
            yield word
