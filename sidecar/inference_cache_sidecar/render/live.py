"""One client's view of a stream that is still running: its own id, its own wish for usage, all else untouched bytes.

Made by the renderers for the leader and for every follower; fed with each event as upstream sent it. Searches bytes
before it parses: most events of most streams go out as they came in.
"""

import re
from typing import Any

import orjson

from inference_cache_sidecar.query.model import Rendition
from inference_cache_sidecar.render import ids
from inference_cache_sidecar.render.sse import data_event, data_of

# Inside a JSON string these quotes would be escaped: the patterns only ever match members.
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_USAGE = b'"usage"'
_FINGERPRINT = b'"system_fingerprint"'


class IdSwap:
    """Puts one id in the place of whatever id the stream carries; `fresh_id` None leaves events alone."""

    def __init__(self, fresh_id: str | None) -> None:
        self._fresh_id = fresh_id
        self._fresh = b"" if fresh_id is None else ids.member(fresh_id)
        self._old: bytes | None = None

    def feed(self, event: bytes) -> bytes:
        if self._fresh_id is None:
            return event
        if self._old is None:
            self._old = _written_id(event)
            if self._old is None:
                return event
        return event.replace(self._old, self._fresh, 1)

    def finish(self) -> bytes:
        return b""


def _written_id(event: bytes) -> bytes | None:
    found = ids.id_of(_parsed(event))
    return None if found is None else ids.written_member(event, found)


class LiveChoices:
    """A view of a chat or completion stream that upstream was asked to end with a usage chunk.

    For a client that did not ask for usage the usage chunk goes, and the fingerprint on it moves to the last finishing
    chunk, where vLLM puts it: so one finishing chunk is held until the next event.
    """

    def __init__(self, rendition: Rendition, answer_id: str | None) -> None:
        self._ids = IdSwap(answer_id)
        self._final_usage = rendition.include_usage
        self._running_usage = rendition.include_usage and rendition.continuous_usage
        self._held = b""

    def feed(self, event: bytes) -> bytes:
        event = self._ids.feed(event)
        if self._running_usage:
            return event
        if _USAGE in event:
            return self._feed_usage(event)
        return event if self._final_usage else self._passed(event)

    def finish(self) -> bytes:
        return self._release()

    def _feed_usage(self, event: bytes) -> bytes:
        chunk = _parsed(event)
        if not isinstance(chunk, dict) or "usage" not in chunk:
            return event if self._final_usage else self._passed(event)
        if chunk.get("choices") == []:
            return event if self._final_usage else self._release(chunk.get("system_fingerprint"))
        del chunk["usage"]
        bare = data_event(orjson.dumps(chunk))
        return bare if self._final_usage else self._passed(bare)

    def _passed(self, event: bytes) -> bytes:
        if not self._held and not _FINISHED.search(event):
            return event
        before = self._release()
        if _FINISHED.search(event):
            self._held = event
            return before
        return before + event

    def _release(self, fingerprint: Any = None) -> bytes:
        held, self._held = self._held, b""
        if not held or fingerprint is None or _FINGERPRINT in held:
            return held
        end = held.rindex(b"}")
        return held[:end] + b',"system_fingerprint":' + orjson.dumps(fingerprint) + held[end:]


def _parsed(event: bytes) -> Any:
    data = data_of(event)
    if data is None:
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
