"""Numbers as questions write them: digits, words, signs, scales, currencies and units, brought to one spelling each."""

import re
from typing import Final

from inference_cache_sidecar.guard.lemma import lemma
from inference_cache_sidecar.guard.words import UNITS

_ONES: Final = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen
"""
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
_RANKS: Final = """
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth
    seventeenth eighteenth nineteenth twentieth
"""
CARDINALS: Final = (
    {word: value for value, word in enumerate(_ONES.split())}
    | {word: 10 * tens for tens, word in enumerate(_TENS.split(), 2)}
    | {"dozen": 12}
)
SCALES: Final = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "lakh": 10**5, "crore": 10**7}
ORDINALS: Final = {word: value for value, word in enumerate(_RANKS.split(), 1)}
ROMAN: Final = {"II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12}

NUMBER: Final = re.compile(
    r"([-+−–]?)([$€£¥₹]?)([-−]?)(\d{1,3}(?:,\d{3})+|\d+(?:,\d\d)?(?:,\d{3})?)(\.\d+)?(%|°?[a-zA-Zµ]{1,9}|\+)?", re.ASCII
)
"""Sign, currency, sign again, digits (1,000 and 1,00,000 too), fraction, then a unit, a scale or an ordinal's ending."""

RANGE: Final = re.compile(r"(\d+(?:\.\d+)?)[-–—](\d+(?:\.\d+)?)", re.ASCII)

_MINUS: Final = ("-", "−", "–")
_CURRENCY: Final = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
_SUFFIX_SCALE: Final = {"k": 3, "m": 6, "mn": 6, "million": 6, "bn": 9, "b": 9, "billion": 9, "thousand": 3}
_SPELLINGS: Final = """
mg milligram milligrams
g gram grams
kg kilogram kilograms kilo kilos kgs
mcg microgram micrograms µg ug
lb lbs
oz ounce ounces
mm millimeter millimetre
cm centimeter centimetre
m meter metre
km kilometer kilometre kms
in inch inches
ft foot feet
mi mile miles
ml milliliter millilitre
l liter litre
s second sec secs
ms millisecond
min minute mins
h hour hr hrs
% percent
kb kilobyte
mb megabyte
gb gigabyte
tb terabyte
w watt
kw kilowatt
c celsius °c
f fahrenheit °f
deg degree
dollar usd
euro eur
pound gbp
rupee rs inr
yen jpy
"""
_UNIT_SPELLINGS: Final = {
    form: line.split()[0] for line in _SPELLINGS.strip().splitlines() for word in line.split() for form in (word, lemma(word))
}


def unit(word: str) -> str | None:
    """The one spelling of a unit, if the lower-case word is one."""
    if word in _UNIT_SPELLINGS:
        return _UNIT_SPELLINGS[word]
    base = lemma(word)
    if base in _UNIT_SPELLINGS:
        return _UNIT_SPELLINGS[base]
    return base if word in UNITS or base in UNITS else None


def written(piece: str) -> tuple[str, str] | None:
    """A number's value and unit ("" if none is attached), or None if the piece is no plain number."""
    match = NUMBER.fullmatch(piece)
    if match is None:
        return None
    sign, currency, inner_sign, digits, fraction, suffix = match.groups()
    value = _plain(digits, fraction)
    negative = "-" if sign in _MINUS or inner_sign else ""
    ending = (suffix or "").lower()
    if ending in ("st", "nd", "rd", "th"):
        return f"{value}th", ""
    if ending in _SUFFIX_SCALE and not (ending == "m" and not currency):
        return negative + _scaled(digits, fraction, _SUFFIX_SCALE[ending]), _CURRENCY.get(currency, "")
    if ending and ending not in ("%", "+") and unit(ending) is None:
        return None
    return negative + value + ("+" if ending == "+" else ""), _CURRENCY.get(currency) or (
        unit(ending) or ending if ending not in ("", "+") else ""
    )


def _plain(digits: str, fraction: str | None) -> str:
    rest = (fraction or "").rstrip("0")
    return digits.replace(",", "") + (rest if rest != "." else "")


def _scaled(digits: str, fraction: str | None, zeros: int) -> str:
    """Digits with the decimal point moved right; no arithmetic, so length costs nothing."""
    rest = (fraction or ".")[1:]
    moved = (digits.replace(",", "") + rest[:zeros].ljust(zeros, "0")).lstrip("0") or "0"
    return moved + ("." + rest[zeros:] if rest[zeros:] else "")


def scaled(value: str, scale: int) -> str:
    """A written value times a power of ten: "2.5" million is "2500000"."""
    negative, digits = ("-", value[1:]) if value.startswith("-") else ("", value)
    whole, _, fraction = digits.partition(".")
    if not whole.isdigit():
        return f"{value}x{scale}"
    return negative + _scaled(whole, "." + fraction, len(str(scale)) - 1)
