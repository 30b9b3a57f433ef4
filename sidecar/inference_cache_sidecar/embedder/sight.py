"""What no embedder can see whole, told from the text alone, before any tokenizer sees it."""

from typing import Final

CHARACTERS_PER_TOKEN: Final = 16
"""No prose has tokens so long on average: a text of more characters is too long without a look at its tokens."""


def out_of_sight(text: str, max_tokens: int) -> bool:
    """True for a huge text, and for a lone surrogate, which JSON lets through and no tokenizer takes."""
    if len(text) > max_tokens * CHARACTERS_PER_TOKEN:
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
