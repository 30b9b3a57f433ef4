"""The short way of repeated requests: taken when it may be, and deciding as the usual way does."""

import pytest

QUESTION = "What is the capital of France?"


@pytest.fixture
def prepared(sidecar, monkeypatch):
    """How many hits went the short way; the first two askings only prepare it."""
    taken = []
    repeats = sidecar.running.parts.repeats
    answer = repeats.answer

    def counted(request, body):
        found = answer(request, body)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(repeats, "answer", counted)
    return taken


async def test_the_third_asking_takes_the_short_way_and_looks_like_the_second(sidecar, standin, prepared):
    _, usual, short = [await sidecar.chat(QUESTION) for _ in range(3)]
    assert prepared == [False, False, True]
    assert standin.inferences == 1
    assert short.text == usual.text
    assert short.json().keys() == usual.json().keys()
    assert short.json()["id"] != usual.json()["id"]
    assert set(short.headers) == set(usual.headers)
    assert short.kind == "exact"


async def test_a_stream_takes_it_too(sidecar, prepared):
    usual, short = [await sidecar.chat(QUESTION, stream=True) for _ in range(3)][1:]
    assert prepared[-1]
    assert short.body.count(b"data: ") == usual.body.count(b"data: ")
    assert short.headers["Content-Type"] == usual.headers["Content-Type"]


async def test_the_callers_request_id_is_written_as_json(sidecar, prepared):
    for _ in range(2):
        await sidecar.chat(QUESTION)
    answer = await sidecar.chat(QUESTION, {"X-Request-Id": 'a"b\\c'})
    assert prepared[-1]
    assert answer.json()["id"] == 'chatcmpl-a"b\\c'


async def test_another_callers_equal_bytes_are_another_request(sidecar, prepared):
    for _ in range(3):
        await sidecar.chat(QUESTION, {"Authorization": "Bearer one"})
    other = await sidecar.chat(QUESTION, {"Authorization": "Bearer two"})
    assert not prepared[-1]
    assert other.kind == "miss"


async def test_a_refused_credential_ends_it(sidecar, standin, prepared):
    for _ in range(3):
        await sidecar.chat(QUESTION, {"Authorization": "Bearer one"})
    parts = sidecar.running.parts
    credential = next(iter(parts.access._accepted))
    parts.access.observe(credential, "/v1/models", 401)
    standin.api_key = "another"
    assert (await sidecar.chat(QUESTION, {"Authorization": "Bearer one"})).status == 401
    assert not prepared[-1]


@pytest.mark.parametrize("flush", [{"all": True}, {"version": ""}], ids=["all", "version"])
async def test_a_flush_ends_it(sidecar, prepared, flush):
    for _ in range(3):
        await sidecar.chat(QUESTION)
    parts = sidecar.running.parts
    if "all" in flush:
        await sidecar.administer("/flush", flush)
    else:
        parts.changes.happened("/update_weights", b"", 200)
        while not parts.identity.confirmed:
            await sidecar.get("/health")
    assert (await sidecar.chat(QUESTION)).kind == "miss"


async def test_a_fresh_answer_takes_the_place_of_the_prepared_one(sidecar, standin, prepared):
    for _ in range(3):
        old = await sidecar.chat(QUESTION)
    standin.writer = type(standin.writer)(standin.writer.tokens, "fresh", standin.writer.known)
    standin.ready.clear()
    fresh = await sidecar.chat(QUESTION, {"Cache-Control": "no-cache"})
    assert fresh.text != old.text
    for _ in range(3):
        assert (await sidecar.chat(QUESTION)).text == fresh.text
    assert prepared[-1]


async def test_an_entry_past_its_time_is_not_served_the_short_way(start_sidecar, standin):
    now = [1_700_000_000.0]
    sidecar = await start_sidecar({"exact": {"ttl": "60s"}, "semantic": {"mode": "Off"}}, clock=lambda: now[0])
    for _ in range(3):
        await sidecar.chat(QUESTION)
    now[0] += 59
    assert (await sidecar.chat(QUESTION)).headers["Age"] == "59"
    now[0] += 1
    assert (await sidecar.chat(QUESTION)).kind == "miss"


async def test_it_counts_like_any_other_hit(sidecar, prepared):
    for _ in range(5):
        await sidecar.chat(QUESTION)
    shown = await sidecar.metrics()
    assert shown['inference_cache_requests_total{endpoint="chat",outcome="hit_exact"}'] == 4


async def test_where_requests_are_not_all_alike_nobody_takes_it(start_sidecar):
    category = {"name": "pricing", "match": {"header": {"x-category": "pricing"}}, "ttl": "1h"}
    sidecar = await start_sidecar({"semantic": {"categories": [category]}})
    sidecar.running.parts.repeats.answer = None
    assert [(await sidecar.chat(QUESTION)).kind for _ in range(3)] == ["miss", "exact", "exact"]
