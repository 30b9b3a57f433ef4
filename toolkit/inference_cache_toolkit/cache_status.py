"""Reads the sidecar's `Cache-Status` header (RFC 9211). The demo and the benchmarks judge every answer by it."""

import re
from dataclasses import dataclass, field

NAME = "inference-cache"

_PARAMETER = re.compile(r';\s*([a-z][a-z-]*)(?:=("(?:[^"\\]|\\.)*"|[^;,\s]+))?')


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """What became of a request in the cache."""

    hit: bool = False
    forward: str | None = None
    """Why it went to upstream: miss, bypass, …; None for a hit."""
    stored: bool = False
    collapsed: bool = False
    """Joined a call that another request had begun."""
    ttl_seconds: int | None = None
    details: dict[str, str] = field(default_factory=dict)
    """The fields of `detail`; a bare word stands as a key with an empty value."""

    @property
    def similarity(self) -> float | None:
        found = self.details.get("similarity")
        return None if found is None else float(found)

    @property
    def semantic(self) -> bool:
        return self.hit and "semantic" in self.details


def read_cache_status(header: str | None) -> CacheStatus | None:
    """None if no sidecar wrote the header."""
    if header is None or not header.startswith(NAME):
        return None
    found = {name: value.strip('"') for name, value in _PARAMETER.findall(header[len(NAME) :])}
    parts = (part.partition("=") for part in found.get("detail", "").split(";") if part)
    return CacheStatus(
        hit="hit" in found,
        forward=found.get("fwd"),
        stored="stored" in found,
        collapsed="collapsed" in found,
        ttl_seconds=int(found["ttl"]) if "ttl" in found else None,
        details={name: value for name, _, value in parts},
    )
