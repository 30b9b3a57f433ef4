"""Which headers cross the proxy, in either direction.

Called by the upstream client on the way in and by the relays on the way out.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from multidict import CIMultiDict

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110 section 7.6.1, with the two that proxies of old added."""

CREDENTIALS: Final = ("Authorization", "x-api-key")
"""Headers by which vLLM (and servers like it) know a caller."""

DOWNSTREAM_CACHE_CONTROL: Final = "private, no-store"
"""No cache outside may repeat an answer: it would know neither versions nor flushes."""

KEPT_WITH_ENTRY: Final = ("content-type", "vary")
"""What a replay repeats of the stored response, besides CORS; never cookies, dates or request ids."""


def end_to_end(headers: Mapping[str, str], drop: Iterable[str] = ()) -> CIMultiDict[str]:
    """A copy without hop-by-hop headers, those that `Connection` names, and `drop` (lower case)."""
    dropped = HOP_BY_HOP.union(drop) if drop else HOP_BY_HOP
    connection = headers.get("Connection")
    if connection is not None and connection.lower() not in ("keep-alive", "close"):
        dropped = dropped.union(name.strip().lower() for name in connection.split(","))
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def kept_with_entry(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers that belong to the answer itself, in lower case."""
    lowered = ((name.lower(), value) for name, value in headers.items())
    return tuple((name, value) for name, value in lowered if name in KEPT_WITH_ENTRY or name.startswith("access-control-"))


def credential_of(headers: Mapping[str, str]) -> str:
    """What the caller presents, as one string; empty if nothing."""
    return "\n".join(f"{name.lower()}:{headers[name]}" for name in CREDENTIALS if name in headers)


def credential_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in CREDENTIALS if name in headers}
