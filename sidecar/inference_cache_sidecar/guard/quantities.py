"""Number words and digits to one form: "twenty-five", "25"; "two million", "2,000,000"; each with its unit."""

from typing import Final

from inference_cache_sidecar.guard import numbers
from inference_cache_sidecar.guard.tokens import Kind, Token

UNSURE_ONE: Final = "(1)"
""""one" may be a number or a person."""

_SIGNS: Final = {"minus": "-", "negative": "-"}
_COUNTED: Final = {"twice": "2x", "thrice": "3x", "half": "1/2"}
_NUMBER_WORDS: Final = frozenset((*numbers.CARDINALS, *numbers.ORDINALS, *_COUNTED))


def quantities(sentence: list[Token]) -> tuple[list[str], list[Token]]:
    """The numbers in order, and the tokens that are not part of one."""
    found: list[str] = []
    rest: list[Token] = []
    position = 0
    while position < len(sentence):
        token = sentence[position]
        if token.kind is not Kind.NUMBER and token.text not in _NUMBER_WORDS and token.surface not in numbers.ROMAN:
            rest.append(token)
            position += 1
            continue
        end, value, unit = _number(sentence, position)
        if end == position:
            rest.append(sentence[position])
            position += 1
            continue
        end, unit = _unit(sentence, end, unit)
        found.append(f"{_sign(sentence, position)}{value} {unit}".rstrip())
        position = end
    return found, rest


def _number(sentence: list[Token], start: int) -> tuple[int, str, str]:
    """(position after the number, value, unit); the position is `start` if no number stands there."""
    token = sentence[start]
    if token.kind is Kind.NUMBER:
        return _digits(sentence, start)
    if token.surface in numbers.ROMAN and not token.opens:
        return start + 1, str(numbers.ROMAN[token.surface]), ""
    if token.text not in _NUMBER_WORDS:
        return start, "", ""
    if token.text in numbers.CARDINALS:
        return _in_words(sentence, start)
    if token.text == "second" and start and sentence[start - 1].text in ("per", "each", "every"):
        return start, "", ""
    return start + 1, _COUNTED.get(token.text) or f"{numbers.ORDINALS[token.text]}th", ""


def _digits(sentence: list[Token], start: int) -> tuple[int, str, str]:
    token = sentence[start]
    scale = numbers.SCALES.get(sentence[start + 1].text) if start + 1 < len(sentence) and not token.unit else None
    if scale is not None:
        return start + 2, numbers.scaled(token.text, scale), ""
    return start + 1, token.text, token.unit


def _in_words(sentence: list[Token], start: int) -> tuple[int, str, str]:
    total, current, position = 0, 0, start
    while position < len(sentence):
        word = sentence[position].text
        if word in numbers.CARDINALS:
            current += numbers.CARDINALS[word]
        elif word in numbers.SCALES and position > start:
            scale = numbers.SCALES[word]
            total, current = (total, current * scale) if scale == 100 else (total + current * scale, 0)
        elif not (word == "and" and position > start and _continues(sentence, position)):
            break
        position += 1
    if position == start + 1 and sentence[start].text == "one":
        return position, UNSURE_ONE, ""
    return position, str(total + current), ""


def _continues(sentence: list[Token], position: int) -> bool:
    """ "hundred and five", not "two and three"."""
    following = sentence[position + 1].text if position + 1 < len(sentence) else ""
    return sentence[position - 1].text in numbers.SCALES and following in numbers.CARDINALS


def _unit(sentence: list[Token], end: int, unit: str) -> tuple[int, str]:
    if unit or end >= len(sentence) or sentence[end].kind is not Kind.WORD:
        return end, unit
    following = numbers.unit(sentence[end].text)
    return (end + 1, following) if following else (end, "")


def _sign(sentence: list[Token], position: int) -> str:
    return _SIGNS.get(sentence[position - 1].text, "") if position else ""
