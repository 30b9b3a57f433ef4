"""Is this English? The other rules know no other language, so for the rest only equal texts match."""

from collections.abc import Sequence

from inference_cache_sidecar.guard.words import ENGLISH, FOREIGN


def is_english(text: str, words: Sequence[str]) -> bool:
    """False if most letters are not Latin, or more small words are of another language than English."""
    if not text.isascii():
        letters = sum(char.isalpha() for char in text)
        if sum(char.isalpha() and ord(char) > 0x24F for char in text) * 3 > letters:
            return False
    foreign = len(FOREIGN.intersection(words))
    return foreign == 0 or len(ENGLISH.intersection(words)) >= foreign
