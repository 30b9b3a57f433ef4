"""From a hit, or a reader's place in a flight, to the response of one client.

Called by the pipeline. Raises `Unserved` where a flight that was joined cannot serve this client after all.
"""

from aiohttp import web
from multidict import CIMultiDict

from inference_cache_contract.entry import Entry
from inference_cache_sidecar import cache_status
from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.asking import Ask
from inference_cache_sidecar.errors import SidecarError
from inference_cache_sidecar.flights import Flight, Reader
from inference_cache_sidecar.outcome import Answered, Hit, Miss
from inference_cache_sidecar.relay import Relayed, break_off
from inference_cache_sidecar.replay import Replay

_SSE = "text/event-stream; charset=utf-8"


class UnservedError(SidecarError):
    """The flight's answer cannot be rendered for this client: it must ask upstream itself."""


class BrokenOffError(UnservedError):
    """The flight broke off before this client was sent anything: another one may do."""


def new_id(ask: Ask) -> str:
    """An id of this request's own, in upstream's style."""
    return ask.renderer.new_id(ask.request.headers.get("X-Request-Id"))


def hit_response(ask: Ask, hit: Hit, age_seconds: float, answer_id: str, *, stale: str | None = None) -> Replay:
    """A replay under `answer_id`. `stale` says why an entry past its end is served."""
    entry = hit.entry
    status = cache_status.hit(hit.kind, hit.remaining_seconds, entry.digest.hex(), hit.similarity, stale=stale)
    return _replay(ask, entry, answer_id, age_seconds, status)


def _replay(ask: Ask, entry: Entry, answer_id: str, age_seconds: float, status: str) -> Replay:
    content_type, body = replay_parts(ask, entry, answer_id)
    return Replay(body, header_lines(entry, content_type), age_seconds, status)


def replay_parts(ask: Ask, entry: Entry, answer_id: str) -> tuple[str, bytes]:
    """Content type and body of the entry, as this client wants it."""
    rendition = ask.query.rendition
    if rendition.stream:
        return _SSE, ask.renderer.stream(entry.answer, entry.answer_id, answer_id, rendition)
    return "application/json", ask.renderer.plain(entry.answer, entry.answer_id, answer_id)


def header_lines(entry: Entry, content_type: str) -> str:
    """What is the same in every replay of the entry."""
    kept = [f"{name}: {value}\r\n" for name, value in entry.headers if name != "content-type"]
    return "".join([*kept, f"Content-Type: {content_type}\r\n"])


async def flight_response(ask: Ask, reader: Reader, answered: Answered, *, leader: bool) -> web.StreamResponse:
    """The running or finished answer, as this client wants it. Raises UnservedError before anything is sent."""
    if answered.events != ask.query.rendition.stream and not leader and answered.status == 200:
        return await _other_rendition(ask, reader.flight, answered)
    if answered.events:
        return await _live(ask, reader, answered, leader)
    return await _plain(ask, reader, answered, leader)


async def _other_rendition(ask: Ask, flight: Flight, answered: Answered) -> Replay:
    """A plain client on a streamed answer, or the reverse: served from the entry once there is one."""
    while not flight.ended and flight.joinable:
        await flight.more()
    entry = flight.entry
    if entry is None and flight.error is not None:
        raise BrokenOffError("the answer broke off before it could be rendered")
    if entry is None:
        raise UnservedError("nothing was stored to render from")
    return _replay(ask, entry, new_id(ask) if entry.answer_id else "", 0.0, _status(answered, ask, leader=False, stored=True))


async def _live(ask: Ask, reader: Reader, answered: Answered, leader: bool) -> web.StreamResponse:
    renderer, rendition = ask.renderer, ask.query.rendition
    if not leader and not renderer.can_join(rendition, reader.flight.query.rendition):
        return await _other_rendition(ask, reader.flight, answered)
    view = renderer.live(rendition, None if leader else new_id(ask))
    response = Relayed(status=answered.status, reason=answered.reason, headers=_headers(ask, answered, leader, stored=False))
    response.headers.popall("Content-Length", None)
    await response.prepare(ask.request)
    try:
        async for batch in reader.batches():
            if out := b"".join([view.feed(event) for event in batch]):
                await response.write(out)
        await response.write_eof(view.finish())
    except SidecarError:
        break_off(ask.request, response)
    return response


async def _plain(ask: Ask, reader: Reader, answered: Answered, leader: bool) -> web.StreamResponse:
    flight = reader.flight
    while not flight.ended and flight.joinable:
        await flight.more()
    if flight.ended and flight.joinable and flight.error is None:
        body, entry = flight.whole(), flight.entry
        if not leader and entry is not None and entry.answer_id:
            body = ask.renderer.plain(body, entry.answer_id, new_id(ask))
        headers = _headers(ask, answered, leader, stored=entry is not None)
        headers.popall("Content-Length", None)
        response: web.StreamResponse = Relayed(status=answered.status, reason=answered.reason, headers=headers)
        response.content_length = len(body)
        await response.prepare(ask.request)
        await response.write_eof(body)
        return response
    response = Relayed(status=answered.status, reason=answered.reason, headers=_headers(ask, answered, leader, stored=False))
    await response.prepare(ask.request)
    try:
        async for batch in reader.batches():
            await response.write(b"".join(batch))
        await response.write_eof()
    except SidecarError:
        break_off(ask.request, response)
    return response


def _headers(ask: Ask, answered: Answered, leader: bool, *, stored: bool) -> CIMultiDict[str]:
    # Rate limits, cookies, trace ids and the like are the leader's own; a follower gets what belongs to the answer.
    headers = header_rules.end_to_end(answered.headers) if leader else CIMultiDict(header_rules.kept_with_entry(answered.headers))
    headers["Cache-Control"] = header_rules.DOWNSTREAM_CACHE_CONTROL
    headers.add("Cache-Status", _status(answered, ask, leader=leader, stored=stored))
    return headers


def _status(answered: Answered, ask: Ask, *, leader: bool, stored: bool) -> str:
    return cache_status.forwarded(
        "request" if ask.asked.directives.no_cache else "miss",
        status=None if answered.status == 200 else answered.status,
        stored=stored,
        collapsed=not leader,
        key=ask.asked.digest.hex() if stored else None,
        detail=refusal_detail(answered.miss),
    )


def refusal_detail(miss: Miss) -> str | None:
    """Why the nearest entry was not served; the rule's name alone, never text."""
    if miss.refusal is None:
        return None
    similarity = "" if miss.similarity is None else f";similarity={miss.similarity:.3f}"
    return f"guard={miss.refusal.rule}{similarity}"
