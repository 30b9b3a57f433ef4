"""The `Cache-Status` header (RFC 9211) of every answer. Pure."""

from typing import Final

NAME: Final = "inference-cache"
UNASKED: Final = f'{NAME}; detail="refused"'
"""Of answers that the sidecar gives to what it cannot pass on: neither a hit nor forwarded."""


def hit(kind: str, ttl_seconds: float, key: str, similarity: float | None = None, *, stale: str | None = None) -> str:
    """`kind` is exact or semantic; a negative ttl says how long ago the entry went stale, `stale` why it is served."""
    detail = kind if similarity is None else f"{kind};similarity={similarity:.3f}"
    if stale is not None:
        detail = f"{detail};{stale}"
    return f'{NAME}; hit; ttl={int(ttl_seconds)}; key="{key}"; detail="{detail}"'


def forwarded(
    reason: str,
    *,
    status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    key: str | None = None,
    detail: str | None = None,
) -> str:
    """`reason` is a forward reason of RFC 9211: bypass, method, miss, request, stale, partial."""
    parts = [NAME, f"fwd={reason}"]
    if status is not None:
        parts.append(f"fwd-status={status}")
    if stored:
        parts.append("stored")
    if collapsed:
        parts.append("collapsed")
    if key is not None:
        parts.append(f'key="{key}"')
    if detail is not None:
        parts.append(f'detail="{detail}"')
    return "; ".join(parts)
