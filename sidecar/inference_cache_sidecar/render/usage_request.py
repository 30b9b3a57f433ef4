"""Asking upstream for the usage chunk that a stored answer needs, whatever the client asked for."""

import json
import re
from typing import Any

from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render.members import Member, members

_ASKED = b'"stream_options":{"include_usage":true},'
_OPENING = re.compile(rb'\s*\{(?=\s*")')


def with_usage(body: bytes, rendition: Rendition) -> bytes:
    """`body` with `stream_options.include_usage` true, all other values as written; unchanged if it need not be."""
    if not rendition.stream or rendition.include_usage:
        return body
    if b'"stream_options"' not in body:
        return _inserted(body)
    try:
        return _spliced(body)
    except (ValueError, RecursionError):
        return body


def _inserted(body: bytes) -> bytes:
    opening = _OPENING.match(body)
    return body if opening is None else body[: opening.end()] + _ASKED + body[opening.end() :]


def _spliced(body: bytes) -> bytes:
    text = body.decode()
    # Of equal names the last one counts.
    written = [member for member in members(text) if member.key == "stream_options"]
    if not written:
        return _inserted(body)
    last = written[-1]
    return (text[: last.start] + json.dumps(_options(last)) + text[last.end :]).encode()


def _options(member: Member) -> dict[str, Any]:
    """continuous_usage_stats means nothing to vLLM without include_usage: this client did not ask for either."""
    options = member.value if isinstance(member.value, dict) else {}
    kept = {key: value for key, value in options.items() if key != "continuous_usage_stats"}
    return {**kept, "include_usage": True}
