"""Bytes and durations as people write them: `200Mi`, `1.5G`, `30s`, `1h`. Pure. Raises ValueError, with what would have been right."""

import re
from typing import Final

_BYTES: Final = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)([A-Za-z]*)", re.ASCII)


def parse_bytes(text: str) -> int:
    """Bytes; a number alone is bytes too."""
    number, unit = _parts(text)
    if unit not in _BYTES:
        raise ValueError(f"{text!r} is no number of bytes such as 500, 200Mi or 1.5G")
    return int(number * _BYTES[unit])


def parse_seconds(text: str) -> float:
    number, unit = _parts(text)
    if unit not in _SECONDS:
        raise ValueError(f"{text!r} is no duration such as 30s, 5m or 1h")
    return number * _SECONDS[unit]


def show_bytes(count: float) -> str:
    """For people: three digits and a unit."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    power = 0
    while count >= 1000 and power < len(units) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.0f} {units[power]}" if power == 0 else f"{count:.3g} {units[power]}"


def show_seconds(seconds: float | None) -> str:
    """For people; `?` where nobody can tell."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _parts(text: str) -> tuple[float, str]:
    found = _NUMBER.fullmatch(text.strip())
    return (float(found[1]), found[2]) if found else (0.0, "?")
