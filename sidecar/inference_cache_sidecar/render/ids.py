"""Answer ids: made in vLLM's style, and put in the place of another request's id without parsing the answer.

A JSON string escapes its quotes, so the bytes of a member `"id":"…"` never occur inside a content string: the first
occurrence is replaced, which is where every server writes the top-level id.
"""

import re
import secrets
from typing import Any

import orjson


def new_id(prefix: str, request_id: str | None) -> str:
    """`prefix`, then the caller's X-Request-Id as vLLM uses it, else 16 hex digits."""
    return prefix + (secrets.token_hex(8) if request_id is None else request_id)


def member(answer_id: str) -> bytes:
    return b'"id":' + orjson.dumps(answer_id)


def replace_id(body: bytes, old_id: str, fresh_id: str) -> bytes:
    """`body`, a JSON object, with its top-level id replaced; all else byte for byte."""
    if not old_id:
        return body
    old = member(old_id)
    if body.startswith(old, 1):
        return body[:1] + member(fresh_id) + body[1 + len(old) :]
    return _replace_spaced(body, old_id, fresh_id)


def _replace_spaced(body: bytes, old_id: str, fresh_id: str) -> bytes:
    written = written_member(body, old_id)
    if written is None:
        return orjson.dumps({**orjson.loads(body), "id": fresh_id})
    return body.replace(written, member(fresh_id), 1)


def written_member(body: bytes, answer_id: str) -> bytes | None:
    """The member as this server spaces it; None if the id is written with other escapes."""
    found = re.search(rb'"id"\s*:\s*' + re.escape(orjson.dumps(answer_id)), body)
    return None if found is None else found[0]


def id_of(parsed: Any) -> str | None:
    """The id of an answer or of one of its events: at the top, or in the response or message it carries."""
    if not isinstance(parsed, dict):
        return None
    for holder in (parsed, parsed.get("response"), parsed.get("message")):
        if isinstance(holder, dict) and isinstance(holder.get("id"), str):
            return str(holder["id"])
    return None
