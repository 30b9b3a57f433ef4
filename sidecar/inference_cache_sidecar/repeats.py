"""Exact hits of requests that were answered before, by their very bytes: the shortest way through the sidecar.

The pipeline asks here first. What a hit's response is made of is kept with the remembered place of its request; everything
that decides whether it may be served is checked again each time: who asks, upstream's identity, the entry, its epochs, its age.
An exact hit takes 59 µs of CPU this way, and 88 the usual one.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from inference_cache_contract.endpoints import PATHS
from inference_cache_contract.entry import Entry
from inference_cache_sidecar import cache_status
from inference_cache_sidecar.access import Access
from inference_cache_sidecar.asking import Ask
from inference_cache_sidecar.placing import REMEMBERED_BODY_BYTES, Place, Placer
from inference_cache_sidecar.relay import ClientBody
from inference_cache_sidecar.render.protocol import Renderer
from inference_cache_sidecar.replay import Replay
from inference_cache_sidecar.serving import header_lines, replay_parts
from inference_cache_sidecar.store.protocol import EntryStore

LONGEST_ANSWER_BYTES: Final = 4096
"""Longer ones take the usual way: what is kept for all remembered requests stays under some 8 MiB."""

_MARK: Final = secrets.token_hex(16)
"""Stands for the id in a prepared answer; no answer contains it."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """A prepared exact hit."""

    entry: Entry
    renderer: Renderer
    lines: str
    """Header lines that are the same in every replay."""
    key: str
    seams: tuple[bytes, ...]
    """The body, cut where the answer's id stands."""


class Repeats:
    """`lifetime_seconds` is the exact tier's; without categories and trusted callers it is the same for every request."""

    def __init__(
        self, placer: Placer, store: EntryStore, access: Access, clock: Callable[[], float], lifetime_seconds: float, body_bytes: int
    ) -> None:
        """`body_bytes`: the longest cacheable body."""
        self._most_bytes = min(body_bytes, REMEMBERED_BODY_BYTES)
        self._placer = placer
        self._store = store
        self._access = access
        self._clock = clock
        self._lifetime_seconds = lifetime_seconds

    def answer(self, request: web.BaseRequest, body: ClientBody) -> tuple[Replay, Repeat] | None:
        """None where anything is not as usual; `body` has then been read if all of it was there."""
        endpoint = PATHS.get(request.raw_path)
        if endpoint is None or request.method != "POST" or "Cache-Control" in request.headers:
            return None
        if not body.at_hand(self._most_bytes):
            return None
        place = self._placer.remembered(request, endpoint, body.head)
        if place is None or place.repeat is None or not self._access.accepted(place.caller.credential):
            return None
        return self._replayed(request, place, place.repeat)

    def learn(self, ask: Ask, entry: Entry) -> None:
        """Called for every exact hit that was served."""
        known = ask.place.repeat
        if len(ask.body) > self._most_bytes or (known is not None and known.entry.created == entry.created):
            return
        content_type, body = replay_parts(ask, entry, _MARK if entry.answer_id else "")
        if len(body) > LONGEST_ANSWER_BYTES:
            return
        lines = header_lines(entry, content_type)
        ask.place.repeat = Repeat(entry, ask.renderer, lines, entry.digest.hex(), tuple(body.split(_MARK.encode())))

    def _replayed(self, request: web.BaseRequest, place: Place, repeat: Repeat) -> tuple[Replay, Repeat] | None:
        entry = repeat.entry
        age = entry.age(self._clock())
        remaining = min(entry.ttl_seconds, self._lifetime_seconds) - age
        if remaining <= 0 or not self._store.still(entry):
            place.repeat = None
            return None
        body = repeat.seams[0]
        if len(repeat.seams) > 1:
            answer_id = repeat.renderer.new_id(request.headers.get("X-Request-Id"))
            body = orjson.dumps(answer_id)[1:-1].join(repeat.seams)
        return Replay(body, repeat.lines, age, cache_status.hit("exact", remaining, repeat.key)), repeat
