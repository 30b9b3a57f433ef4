"""Durations and byte quantities as a spec writes them: `24h`, `1h30m`, `250ms`; `512Mi`, `1G`, `1048576`.

Reading and writing are exact inverses, so that a printed configuration loads to the very same values.
"""

import re
from decimal import Decimal
from typing import Final

from inference_cache_contract.errors import shown

MAX_SECONDS: Final = 100 * 365 * 24 * 3600
MAX_BYTES: Final = 2**63 - 1

_SECONDS: Final = {"h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001"), "us": Decimal("0.000001")}
_BYTES: Final = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_NUMBER: Final = r"[0-9]{1,20}(?:\.[0-9]{1,400})?"
_PART: Final = re.compile(rf"({_NUMBER})(h|ms|us|m|s)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
_PLAIN: Final = re.compile(_NUMBER)
_QUANTITY: Final = re.compile(rf"({_NUMBER})({'|'.join(sorted(_BYTES, key=len, reverse=True))})")


def parse_duration(raw: object) -> float:
    """Seconds, from a text like `1h30m` or a plain number of seconds. Raises ValueError."""
    text = _number_as_text(raw)
    if _PLAIN.fullmatch(text):
        seconds = Decimal(text)
    elif _DURATION.fullmatch(text):
        seconds = sum((Decimal(number) * _SECONDS[unit] for number, unit in _PART.findall(text)), Decimal(0))
    else:
        raise ValueError(f"{shown(raw)} is not a duration such as 24h, 1h30m, 5m, 0s or 250ms")
    if seconds > MAX_SECONDS:
        raise ValueError(f"{shown(raw)} is longer than 100 years")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as exactly `seconds`."""
    rest = Decimal(repr(float(seconds)))
    if rest < 1:
        return f"{_plain(rest * 1000)}ms" if rest else "0s"
    parts = []
    for unit in ("h", "m"):
        count, rest = divmod(rest, _SECONDS[unit])
        if count:
            parts.append(f"{count:f}{unit}")
    if rest:
        parts.append(f"{_plain(rest)}s")
    return "".join(parts)


def parse_bytes(raw: object) -> int:
    """Bytes, from a text like `512Mi` or `1G` or a plain whole number. Raises ValueError."""
    match = _QUANTITY.fullmatch(_number_as_text(raw))
    if match is None:
        raise ValueError(f"{shown(raw)} is not a quantity of bytes such as 512Mi, 1G or 1048576")
    count = Decimal(match[1]) * _BYTES[match[2]]
    if count != int(count):
        raise ValueError(f"{shown(raw)} is not a whole number of bytes")
    if count > MAX_BYTES:
        raise ValueError(f"{shown(raw)} is more than {MAX_BYTES} bytes")
    return int(count)


def format_bytes(count: int) -> str | int:
    """With the largest binary unit that divides `count`; a plain number if none does."""
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return count


def _number_as_text(raw: object) -> str:
    """`bool` is an `int` to Python but not to anyone who writes `ttl: true`."""
    if isinstance(raw, float):
        return _plain(Decimal(repr(raw)))
    return str(raw).strip() if isinstance(raw, int | str) and not isinstance(raw, bool) else ""


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
