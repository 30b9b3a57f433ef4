"""What a client asks of the cache: request `Cache-Control` (RFC 9111, section 5.2.1). Pure."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Directives:
    """Seconds where they are times; None = not asked."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    min_fresh: float | None = None

    def allow(self, age: float, remaining: float) -> bool:
        """May an entry of this age, with `remaining` seconds to live, answer?"""
        if self.no_cache:
            return False
        if self.max_age is not None and age > self.max_age:
            return False
        return self.min_fresh is None or remaining >= self.min_fresh


NONE: Final = Directives()


def parse(value: str | None) -> Directives:
    """Unknown directives are ignored; an unreadable time counts as 0 for max-age and as endless for min-fresh: the cautious side."""
    if not value:
        return NONE
    given = dict(_pairs(value))
    return Directives(
        no_cache="no-cache" in given,
        no_store="no-store" in given,
        only_if_cached="only-if-cached" in given,
        max_age=_seconds(given["max-age"], 0.0) if "max-age" in given else None,
        min_fresh=_seconds(given["min-fresh"], float("inf")) if "min-fresh" in given else None,
    )


def _pairs(value: str) -> list[tuple[str, str]]:
    parts = (part.strip().partition("=") for part in value.split(","))
    return [(name.strip().lower(), argument.strip().strip('"')) for name, _, argument in parts if name.strip()]


def _seconds(text: str, otherwise: float) -> float:
    return float(text) if text.isascii() and text.isdigit() else otherwise
