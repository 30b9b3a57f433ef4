"""How this package writes down its word lists."""


def wordset(text: str) -> frozenset[str]:
    """The words of a text, in any order, on any number of lines."""
    return frozenset(text.split())
