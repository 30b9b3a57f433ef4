"""What a conversation's messages are made of, in the words of the three chat-type endpoints.

Content that the request carries itself (text, base64) is in the scope as it stands. Content that it only names (a URL, a
file id, a cache id) may be another one tomorrow: such a conversation is never found by similarity.
"""

from collections.abc import Callable
from typing import Any, Final

from inference_cache_sidecar.query.body import Json


def is_inline(content: object) -> bool:
    """All of it is in the request itself. Kinds that we do not know are not."""
    if type(content) is str or content is None:
        return True
    return type(content) is list and all(type(part) is dict and "uuid" not in part and _part_is_inline(part) for part in content)


def last_text(content: object) -> Json | None:
    """The part that holds the last text of a list of parts."""
    if type(content) is not list:
        return None
    return next((part for part in reversed(content) if part.get("type") in TEXT_PARTS and type(part.get("text")) is str), None)


TEXT_PARTS: Final = frozenset({"text", "input_text"})
TOOL_RESULT: Final = "tool_result"


def _part_is_inline(part: Json) -> bool:
    kind = part.get("type")
    if type(kind) is not str:
        return False
    return kind in _WORDS or (kind in _MEDIA and _MEDIA[kind](part))


_WORDS: Final = frozenset({"text", "input_text", "output_text", "refusal", "thinking", "redacted_thinking", "tool_use"})


def _is_data(url: object) -> bool:
    return type(url) is str and url.startswith("data:")


def _holds_data(field: str) -> Callable[[Json], bool]:
    return lambda part: type(part.get(field)) is dict and _is_data(part[field].get("url"))


def _has_source(part: Json) -> bool:
    source: Any = part.get("source")
    return type(source) is dict and source.get("type") == "base64"


def _result_is_inline(content: object) -> bool:
    """A result holds no results of its own; one that claims to could nest without end."""
    nested = type(content) is list and any(type(part) is dict and part.get("type") == TOOL_RESULT for part in content)
    return not nested and is_inline(content)


_MEDIA: Final[dict[str, Callable[[Json], bool]]] = {
    "image_url": _holds_data("image_url"),
    "audio_url": _holds_data("audio_url"),
    "video_url": _holds_data("video_url"),
    "input_audio": lambda part: type(part.get("input_audio")) is dict and type(part["input_audio"].get("data")) is str,
    "input_image": lambda part: _is_data(part.get("image_url")) and part.get("file_id") is None,
    "image": _has_source,
    TOOL_RESULT: lambda part: _result_is_inline(part.get("content")),
}
