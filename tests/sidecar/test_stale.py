"""What a caller asks of the cache, how old an answer may be, and what outlives its time. By a clock that the test turns."""

import asyncio

import orjson
import pytest

from inference_cache_toolkit.standin.answers import Writer
from inference_cache_toolkit.standin.faults import Fault
from inference_cache_toolkit.standin.wire import answer_bytes, scripted

QUESTION = "What is the capital of France?"


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def start(start_sidecar, clock):
    """Exact tier only, entries live 100 s; more of the spec as arguments."""

    async def begin(upstream=None, **spec):
        spec = {"semantic": {"mode": "Off"}, "exact": {"ttl": "100s"}, **spec}
        return await (start_sidecar(spec, upstream, clock=clock) if upstream else start_sidecar(spec, clock=clock))

    return begin


async def settled(sidecar):
    async with asyncio.timeout(60):
        while sidecar.running.parts.flights:
            await asyncio.sleep(0.002)


async def test_an_answer_tells_its_age_and_how_long_it_lives(start, clock):
    sidecar = await start()
    first = await sidecar.chat(QUESTION)
    assert "Age" not in first.headers
    clock.now += 30
    hit = await sidecar.chat(QUESTION)
    assert (hit.headers["Age"], "ttl=70;" in hit.cache_status) == ("30", True)
    clock.now += 69.5
    assert (await sidecar.chat(QUESTION)).kind == "exact"
    clock.now += 1
    assert (await sidecar.chat(QUESTION)).kind == "miss"


async def test_a_list_is_as_old_as_its_oldest_item(start, clock):
    sidecar = await start()
    await sidecar.post("/v1/embeddings", {"model": "tiny", "input": ["a", "b"]})
    clock.now += 30
    await sidecar.post("/v1/embeddings", {"model": "tiny", "input": ["c", "d"]})
    clock.now += 10
    hit = await sidecar.post("/v1/embeddings", {"model": "tiny", "input": ["c", "a"]})
    assert (hit.kind, hit.headers["Age"], "ttl=60;" in hit.cache_status) == ("exact", "40", True)


async def test_no_cache_asks_upstream_and_stores_what_it_says(start, standin, clock):
    sidecar = await start()
    await sidecar.chat(QUESTION)
    clock.now += 90
    fresh = await sidecar.chat(QUESTION, {"Cache-Control": "no-cache"})
    assert (fresh.kind, "stored" in fresh.cache_status) == ("request", True)
    clock.now += 90
    assert (await sidecar.chat(QUESTION)).headers["Age"] == "90"
    assert standin.inferences == 2


async def test_no_store_leaves_no_trace_and_finds_nothing(start, standin):
    sidecar = await start()
    for _ in range(2):
        answer = await sidecar.chat(QUESTION, {"Cache-Control": "no-store"})
        assert (answer.kind, answer.status) == ("bypass", 200)
    assert (await sidecar.chat(QUESTION)).kind == "miss"
    assert (await sidecar.chat(QUESTION, {"Cache-Control": "no-store"})).kind == "bypass"
    assert standin.inferences == 4


@pytest.mark.parametrize(
    ("directive", "kind"),
    [
        ("max-age=29", "miss"),
        ("max-age=30", "exact"),
        ("max-age=0", "miss"),
        ("min-fresh=70", "exact"),
        ("min-fresh=71", "miss"),
        ("max-age=60, min-fresh=80", "miss"),
        ("max-age=x", "miss"),
        ("unknown=1, MAX-AGE=60", "exact"),
    ],
)
async def test_a_caller_says_how_fresh_an_answer_must_be(start, clock, directive, kind):
    sidecar = await start()
    await sidecar.chat(QUESTION)
    clock.now += 30
    assert (await sidecar.chat(QUESTION, {"Cache-Control": directive})).kind == kind


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/tokenize"])
async def test_only_if_cached_never_asks_upstream(start, standin, path):
    sidecar = await start()
    fields = {"input": ["a", "b"]} if "embed" in path else {"prompt": "a"} if "token" in path else {}
    body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}]} if "chat" in path else {"model": "tiny", **fields}
    only = {"Cache-Control": "only-if-cached"}
    nothing = await sidecar.post(path, body, only)
    assert (nothing.status, nothing.json()["error"]["code"]) == (504, 504)
    assert nothing.cache_status.startswith("inference-cache;")
    assert standin.inferences == 0
    await sidecar.post(path, body)
    assert (await sidecar.post(path, body, only)).kind == "exact"
    assert standin.inferences == 1


async def test_only_if_cached_is_a_504_also_for_what_can_never_be_cached(start, standin):
    sidecar = await start()
    for fields in ({"temperature": 1.0}, {"tools": 7}):
        answer = await sidecar.chat(QUESTION, {"Cache-Control": "only-if-cached"}, **fields)
        assert answer.status in (200, 504)
        assert answer.status == 504
    assert standin.inferences == 0


async def test_a_stale_answer_is_served_at_once_while_one_fresh_one_is_fetched(start, standin, gate, clock):
    sidecar = await start(stale={"whileRevalidate": "50s"})
    gate.open()
    first = await sidecar.chat(QUESTION)
    clock.now += 120
    gate.events = 0
    standin.writer = Writer(salt="says something else")
    standin.ready.clear()
    stale = await asyncio.gather(*(sidecar.chat(QUESTION) for _ in range(5)))
    assert {answer.text for answer in stale} == {first.text}
    assert all("stale-while-revalidate" in answer.cache_status and "ttl=-20;" in answer.cache_status for answer in stale)
    gate.open()
    await settled(sidecar)
    assert standin.inferences == 2
    fresh = await sidecar.chat(QUESTION)
    assert (fresh.kind, fresh.headers["Age"]) == ("exact", "0")
    assert fresh.text != first.text


async def test_past_the_stale_time_upstream_is_asked(start, clock):
    sidecar = await start(stale={"whileRevalidate": "50s"})
    await sidecar.chat(QUESTION)
    clock.now += 151
    assert (await sidecar.chat(QUESTION)).kind == "miss"


async def test_a_refresh_that_fails_keeps_the_stale_answer(start, standin, clock):
    sidecar = await start(stale={"whileRevalidate": "50s"})
    first = await sidecar.chat(QUESTION)
    clock.now += 120
    standin.fault = Fault.STATUS_500
    for _ in range(2):
        answer = await sidecar.chat(QUESTION)
        assert (answer.status, answer.text) == (200, first.text)
        await settled(sidecar)
    assert standin.inferences == 3


async def test_a_refresh_is_not_content_with_a_similar_answer(start_sidecar, standin, clock):
    spec = {"exact": {"ttl": "100s"}, "semantic": {"ttl": "1000s"}, "stale": {"whileRevalidate": "50s"}}
    sidecar = await start_sidecar(spec, clock=clock)
    await sidecar.chat("How do I reset my password?")
    await sidecar.chat("How can I reset my password?", {"Cache-Control": "no-cache"})
    clock.now += 120
    assert "stale-while-revalidate" in (await sidecar.chat("How do I reset my password?")).cache_status
    await settled(sidecar)
    assert standin.inferences == 3
    assert (await sidecar.chat("How do I reset my password?")).headers["Age"] == "0"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fault", [Fault.STATUS_429, Fault.STATUS_500, Fault.STATUS_503, Fault.RESET], ids=lambda fault: fault.value)
async def test_a_stale_answer_stands_in_for_an_error(start, standin, clock, fault, stream):
    sidecar = await start(stale={"ifError": "50s"})
    await sidecar.chat(QUESTION)
    clock.now += 120
    standin.fault = fault
    answer = await sidecar.chat(QUESTION, stream=stream)
    assert answer.status == 200
    assert "stale-if-error" in answer.cache_status
    assert answer.body.endswith(b"data: [DONE]\n\n") == stream
    assert standin.inferences >= 2, "upstream was asked first"


async def test_without_the_setting_an_error_is_an_error(start, standin, clock):
    sidecar = await start()
    await sidecar.chat(QUESTION)
    clock.now += 120
    standin.fault = Fault.STATUS_503
    assert (await sidecar.chat(QUESTION)).status == 503


async def test_past_the_time_for_errors_an_error_is_an_error(start, standin, clock):
    sidecar = await start(stale={"ifError": "50s"})
    await sidecar.chat(QUESTION)
    clock.now += 151
    standin.fault = Fault.STATUS_503
    assert (await sidecar.chat(QUESTION)).status == 503


async def test_a_clients_own_mistake_is_never_papered_over(start, standin, clock):
    """A 4xx other than 429 is the request's fault, not upstream's."""
    sidecar = await start(stale={"ifError": "50s"})
    await sidecar.chat(QUESTION)
    clock.now += 120
    standin.models = ("other",)
    standin.ready.clear()
    assert (await sidecar.chat(QUESTION)).status == 404


async def answering(exchange):
    choice = {"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]}
    await exchange.send(answer_bytes(orjson.dumps(answer)))


@pytest.mark.parametrize("age", [10, 120], ids=["fresh", "stale"])
async def test_an_upstream_that_is_gone_is_stood_in_for_by_what_it_said_when_last_known(start, clock, age):
    async with scripted(answering) as upstream:
        sidecar = await start(upstream.url, stale={"ifError": "50s"})
        await sidecar.chat(QUESTION)
    clock.now += age
    async with asyncio.timeout(60):
        while sidecar.running.parts.identity.confirmed:
            await asyncio.sleep(0.005)
    for stream in (False, True):
        answer = await sidecar.chat(QUESTION, stream=stream)
        assert answer.status == 200
        assert "stale-if-error" in answer.cache_status
    other = await sidecar.chat("another question")
    assert (other.status, other.json()["error"]["code"]) == (502, 502)
    assert (await sidecar.chat(QUESTION, {"Authorization": "Bearer unknown"})).status == 502, "nobody can vouch for this one"
    clock.now += 200
    assert (await sidecar.chat(QUESTION)).status == 502


async def test_without_the_setting_an_upstream_that_is_gone_is_not_stood_in_for(start):
    async with scripted(answering) as upstream:
        sidecar = await start(upstream.url)
        await sidecar.chat(QUESTION)
    async with asyncio.timeout(60):
        while sidecar.running.parts.identity.confirmed:
            await asyncio.sleep(0.005)
    assert (await sidecar.chat(QUESTION)).status == 502
