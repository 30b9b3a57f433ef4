"""Lists (embeddings, rerank, score, classify): every item is looked up by itself, upstream is asked for the missing ones alone.

Called by the pipeline for list-type endpoints before anything else is tried with them.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.entry import Entry
from inference_cache_contract.scope import digest_of
from inference_cache_sidecar import cache_status
from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.access import Access
from inference_cache_sidecar.asking import Ask
from inference_cache_sidecar.errors import UpstreamAborted, UpstreamFault
from inference_cache_sidecar.flying import REBUILT
from inference_cache_sidecar.items.answers import explode, merge
from inference_cache_sidecar.items.rows import is_listwise
from inference_cache_sidecar.items.split import Split, split, upstream_body
from inference_cache_sidecar.keeping import Keeper, Made
from inference_cache_sidecar.lookup import Asked, Lookup
from inference_cache_sidecar.outcome import Hit
from inference_cache_sidecar.query.rules import QueryRules
from inference_cache_sidecar.relay import relay
from inference_cache_sidecar.render.protocol import Storable
from inference_cache_sidecar.upstream import Upstream, chunks_of

LISTED: Final = frozenset({Endpoint.EMBEDDINGS, Endpoint.RERANK, Endpoint.SCORE, Endpoint.CLASSIFY})
ITEMS_AT_A_TIME: Final = 32
LONG_BODY_BYTES: Final = 64 * 1024
"""Taking a longer one apart is a step of its own, after the one that parsed it."""
MAX_ANSWER_BYTES: Final = 2**20
"""Taking a longer answer apart would hold up everybody else: it is passed on, not stored."""


@dataclass(frozen=True, slots=True)
class Found:
    """A list with what was found of it, by distinct item."""

    split: Split
    places: tuple[Asked, ...]
    entries: tuple[Entry | None, ...]

    @property
    def missing(self) -> list[int]:
        return [item for item, entry in enumerate(self.entries) if entry is None]


class Listing:
    def __init__(self, upstream: Upstream, access: Access, lookup: Lookup, keeper: Keeper) -> None:
        self._upstream = upstream
        self._access = access
        self._lookup = lookup
        self._keeper = keeper

    async def find(self, ask: Ask, root: str, rules: QueryRules) -> Found | None:
        """None where the list must stay whole."""
        if ask.endpoint not in LISTED or is_listwise(ask.query.model, root):
            return None
        if len(ask.body) > LONG_BODY_BYTES:
            await asyncio.sleep(0)
        parts = split(ask.endpoint, ask.body, ask.request.headers, rules)
        if parts is None:
            return None
        scope = ask.asked.scope
        places = tuple(replace(ask.asked, query=query, digest=digest_of(scope, query.canonical)) for query in parts.queries)
        entries = []
        for number, place in enumerate(places):
            await _let_others_go(number)
            entries.append(await self._entry(place))
        if any(entries) and not await self._access.confirm(ask.caller.credential, ask.request.headers):
            entries = [None] * len(entries)
        return Found(parts, places, tuple(entries))

    async def _entry(self, place: Asked) -> Entry | None:
        found = await self._lookup.exact(place)
        return found.entry if isinstance(found, Hit) and found.remaining_seconds > 0 else None

    async def answer(self, ask: Ask, found: Found) -> web.StreamResponse | None:
        """None if the parts did not fit together: the caller asks upstream for the whole list."""
        if not found.missing:
            return self._hit(ask, found)
        begun = replace(await self._keeper.begin(ask.query.model, ask.marks), doubts=ask.doubts)
        headers = header_rules.end_to_end(ask.request.headers, REBUILT)
        headers["Accept-Encoding"] = "identity"
        body = upstream_body(found.split, found.missing)
        started = time.monotonic()
        async with self._upstream.send("POST", ask.path, headers, body, repeatable=True) as answer:
            self._access.observe(ask.caller.credential, ask.path, answer.status)
            length = answer.content_length
            if answer.status != 200 or length is None or length > MAX_ANSWER_BYTES:
                if len(found.missing) < len(found.entries):
                    return None
                return await relay(ask.request, answer, header_rules.end_to_end(answer.headers), cache_status.forwarded("miss"))
            whole = await _whole(answer)
        fresh = explode(found.split, found.missing, whole)
        if fresh is None:
            return None
        seconds = (time.monotonic() - started) / len(fresh)
        for number, (item, single) in enumerate(zip(found.missing, fresh, strict=True)):
            await _let_others_go(number)
            taken = ask.renderer.from_plain(single)
            if isinstance(taken, Storable):
                await self._keeper.keep(found.places[item], begun, Made(taken, answer.headers, seconds))
        headers = header_rules.end_to_end(answer.headers, ("content-length", "content-encoding"))
        return self._merged(ask, found.split, _together(found, fresh), headers, _forwarded(found))

    def _hit(self, ask: Ask, found: Found) -> web.Response | None:
        entries = [entry for entry in found.entries if entry is not None]
        status = cache_status.hit("exact", self._remaining(found), found.places[0].digest.hex())
        response = self._merged(ask, found.split, [entry.answer for entry in entries], CIMultiDict(entries[0].headers), status)
        if response is not None:
            response.headers["Age"] = str(int(max(map(self._lookup.age, entries))))
        return response

    def _remaining(self, found: Found) -> float:
        return min(
            self._lookup.remaining(place, entry) for place, entry in zip(found.places, found.entries, strict=True) if entry is not None
        )

    @staticmethod
    def _merged(ask: Ask, parts: Split, answers: Sequence[bytes], headers: CIMultiDict[str], status: str) -> web.Response | None:
        """`headers` are those that came, or would have come, with the answer."""
        body = merge(parts, answers, ask.renderer.new_id(ask.request.headers.get("X-Request-Id")))
        if body is None:
            return None
        headers["Content-Type"] = "application/json"
        headers["Cache-Control"] = header_rules.DOWNSTREAM_CACHE_CONTROL
        headers.add("Cache-Status", status)
        return web.Response(body=body, headers=headers)


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """Raises UpstreamFault if upstream breaks off: nothing has been sent downstream yet."""
    try:
        return b"".join([chunk async for chunk in chunks_of(answer)])
    except UpstreamAborted as error:
        raise UpstreamFault(502, "the model server broke off its answer") from error


async def _let_others_go(number: int) -> None:
    """Looking up or storing hundreds of items takes longer than anybody else should wait."""
    if number % ITEMS_AT_A_TIME == ITEMS_AT_A_TIME - 1:
        await asyncio.sleep(0)


def _forwarded(found: Found) -> str:
    """`partial` where some of the list came from the cache; the detail says how many of how many."""
    kept = len(found.entries) - len(found.missing)
    return cache_status.forwarded("partial" if kept else "miss", stored=True, detail=f"items={kept}/{len(found.entries)}")


def _together(found: Found, fresh: Sequence[bytes]) -> list[bytes]:
    fetched = iter(fresh)
    return [entry.answer if entry is not None else next(fetched) for entry in found.entries]
