"""What two requests, or a request and a change of upstream, must never do to each other."""

import asyncio

from aiohttp import web
from tests.sidecar.conftest import until_asked

from inference_cache_sidecar.adapters import WEIGHT_PATHS
from inference_cache_toolkit.standin.server import serving
from inference_cache_toolkit.standin.state import Pace, Standin

CHAT = "/v1/chat/completions"


async def confirmed(sidecar) -> None:
    async with asyncio.timeout(60):
        while not sidecar.running.parts.identity.confirmed:
            await asyncio.sleep(0.01)


async def doubted(sidecar, doubts: int) -> None:
    async with asyncio.timeout(60):
        while sidecar.running.parts.identity.doubts == doubts:
            await asyncio.sleep(0.01)
    await confirmed(sidecar)


async def test_an_answer_shown_while_upstream_was_away_is_gone_when_another_model_returns(start_sidecar):
    async with serving(Standin()) as url:
        port = int(url.rpartition(":")[2])
        sidecar = await start_sidecar({"stale": {"ifError": "1h"}}, url)
        first = await sidecar.chat("Who are you?")
    async with asyncio.timeout(60):
        while sidecar.running.parts.identity.confirmed:
            await asyncio.sleep(0.01)
    away = await sidecar.chat("Who are you?")
    assert "stale-if-error" in away.cache_status
    async with serving(Standin(root="/models/other"), port=port):
        await confirmed(sidecar)
        after = await sidecar.chat("Who are you?")
    assert after.kind == "miss"
    assert after.text != first.text


async def test_a_new_version_of_the_server_alone_ends_the_old_ones_answers(sidecar, standin):
    await sidecar.chat("Who are you?")
    doubts = sidecar.running.parts.identity.doubts
    standin.version = "0.33.0"
    await doubted(sidecar, doubts)
    assert (await sidecar.chat("Who are you?")).kind == "miss"


async def test_nothing_is_looked_up_from_a_changed_start_time_until_upstream_has_said_who_it_is(sidecar, standin):
    old = await sidecar.chat("Who are you?")
    identity = sidecar.running.parts.identity
    doubts = identity.doubts
    standin.restart(root="/models/other")
    seen = []
    async with asyncio.timeout(60):
        while identity.doubts == doubts or not identity.confirmed:
            if identity.doubts != doubts:
                seen.append((await sidecar.chat("Who are you?")).text)
            await asyncio.sleep(0.001)
    seen.append((await sidecar.chat("Who are you?")).text)
    assert old.text not in seen


async def test_a_caller_of_the_other_rendition_never_holds_up_an_answer_that_outgrows_the_limit(start_sidecar):
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"data": []}) if request.path == "/v1/models" else web.Response(text="")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(60):
            await response.write(b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"' + b"x" * 16_000 + b'"}}]}\n\n')
            await asyncio.sleep(0.001)
        await response.write(b"data: [DONE]\n\n")
        return response

    server = await asyncio.get_running_loop().create_server(web.Server(endless), "127.0.0.1", 0)
    sidecar = await start_sidecar({"limits": {"answerBytes": "64Ki"}}, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with asyncio.timeout(60):
        streamed, plain = await asyncio.gather(sidecar.chat("Go on", stream=True), sidecar.chat("Go on"))
    server.close()
    assert len(streamed.body) > 900_000
    assert plain.status == 200


async def test_a_weight_update_that_upstream_refuses_flushes_nothing(sidecar, standin):
    await sidecar.chat("Who are you?")
    doubts = sidecar.running.parts.identity.doubts
    for path in WEIGHT_PATHS:
        assert (await sidecar.post(path, {})).status == 404
    assert sidecar.running.parts.identity.doubts == doubts
    assert (await sidecar.chat("Who are you?")).kind == "exact"


async def test_a_follower_with_a_stricter_category_is_not_served_the_leaders_similar_answer(start_sidecar, standin):
    pricing = {"name": "pricing", "match": {"header": {"x-category": "pricing"}}, "threshold": 0.9999}
    sidecar = await start_sidecar({"semantic": {"categories": [pricing]}})
    await sidecar.chat("How do I reset my password?")
    standin.pace = Pace(0.2)
    rephrased = "How can I reset my password?"
    loose, strict = await asyncio.gather(sidecar.chat(rephrased), sidecar.chat(rephrased, {"x-category": "pricing"}))
    assert loose.kind == "semantic"
    assert strict.kind == "miss"


async def test_a_list_carries_what_upstream_says_beside_it(sidecar):
    origin = {"Origin": "https://app.example"}
    for kind in ("miss", "exact"):
        answer = await sidecar.post("/v1/embeddings", {"model": "tiny", "input": ["a", "b"]}, origin)
        assert answer.kind == kind
        assert answer.headers.get("Vary") == "Origin"


async def test_an_answer_in_flight_under_a_flushed_key_is_not_stored(sidecar, standin, gate):
    gate.open()
    first = await sidecar.chat("Who are you?")
    key = first.cache_status.split('key="')[1].split('"')[0]
    gate.events = 0
    running = asyncio.create_task(sidecar.chat("Who are you?", {"Cache-Control": "no-cache"}))
    await until_asked(standin, 2)
    await sidecar.administer("/flush", {"key": key})
    gate.open()
    await running
    assert (await sidecar.chat("Who are you?")).kind == "miss"


async def test_a_client_cannot_fill_memory_with_long_ids_or_cookies(sidecar):
    placer, served = sidecar.running.parts.placer, sidecar.running.parts.served
    await sidecar.chat("How do I reset my password?")
    for number in range(3):
        long = {"X-Request-Id": "i" * 20_000 + str(number), "Cookie": "c" * 20_000 + str(number)}
        assert (await sidecar.chat("How can I reset my password?", long)).kind == "semantic"
    assert all(len(key) == 32 for key in (*placer._remembered, *served._hits))
