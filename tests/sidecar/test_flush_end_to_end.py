"""Flushes, feedback and what trusted callers may say, through the admin port and the proxy together."""

import asyncio

import pytest
from tests.sidecar.conftest import PATIENCE, until_asked

TRUSTING = {"trustedHeaders": {"from": ["127.0.0.0/8"]}}
CATEGORIES = {"categories": [{"name": "pricing"}, {"name": "support", "match": {"header": {"x-team": "support"}}, "ttl": "7s"}]}


@pytest.fixture
async def start(start_sidecar):
    async def begin(**spec):
        return await start_sidecar({"semantic": {"mode": "Off", **CATEGORIES}, "model": {"version": "v1"}, **TRUSTING, **spec})

    return begin


async def kinds(sidecar, *prompts):
    return [(await sidecar.chat(prompt)).kind for prompt in prompts]


@pytest.mark.parametrize(
    ("target", "flushed"),
    [
        pytest.param({"all": True}, {"tagged", "priced", "plain"}, id="all"),
        pytest.param({"version": "v1"}, {"tagged", "priced", "plain"}, id="version"),
        pytest.param({"version": "v2"}, set(), id="another-version"),
        pytest.param({"tag": "user:7"}, {"tagged"}, id="tag"),
        pytest.param({"tag": "user:8"}, set(), id="another-tag"),
        pytest.param({"category": "pricing"}, {"priced"}, id="category"),
    ],
)
async def test_a_flush_makes_its_entries_unreachable_and_a_dry_run_does_not(start, target, flushed):
    sidecar = await start()
    await sidecar.chat("tagged", {"x-inference-cache-tags": "docs, user:7"})
    await sidecar.chat("priced", {"x-inference-cache-category": "pricing"})
    await sidecar.chat("plain")
    rehearsed = await sidecar.administer("/flush", {**target, "dryRun": True})
    assert rehearsed.json()["wouldFlush"] == len(flushed)
    assert await kinds(sidecar, "tagged", "priced", "plain") == ["exact"] * 3
    assert (await sidecar.administer("/flush", target)).json()["flushed"] == len(flushed)
    expected = ["miss" if prompt in flushed else "exact" for prompt in ("tagged", "priced", "plain")]
    assert await kinds(sidecar, "tagged", "priced", "plain") == expected


async def test_a_flush_by_key_takes_the_key_from_cache_status(start):
    sidecar = await start()
    stored = await sidecar.chat("one")
    await sidecar.chat("two")
    key = stored.cache_status.partition('key="')[2].partition('"')[0]
    assert (await sidecar.administer("/flush", {"key": key, "dryRun": True})).json() == {"wouldFlush": 1}
    assert (await sidecar.administer("/flush", {"key": key})).json() == {"flushed": 1}
    assert await kinds(sidecar, "one", "two") == ["miss", "exact"]


async def test_a_flushed_answer_is_not_found_by_similarity_either(start_sidecar):
    sidecar = await start_sidecar(TRUSTING)
    await sidecar.chat("How do I reset my password?", {"x-inference-cache-tags": "kb"})
    assert (await sidecar.chat("How can I reset my password?")).kind == "semantic"
    await sidecar.administer("/flush", {"tag": "kb"})
    assert (await sidecar.chat("How can I reset my password?")).kind == "miss"


@pytest.mark.parametrize("target", [{"all": True}, {"version": "v1"}, {"tag": "kb"}], ids=["all", "version", "tag"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_what_was_asked_before_a_flush_is_not_served_to_who_asks_after_it(start, standin, gate, target, stream):
    """Neither from the store, where it arrives late, nor by joining its flight."""
    sidecar = await start()
    tags = {"x-inference-cache-tags": "kb"}
    gate.calls = 1
    early = asyncio.create_task(sidecar.chat("hello", tags, stream=stream))
    await until_asked(standin)
    await sidecar.administer("/flush", target)
    asking = asyncio.create_task(sidecar.chat("hello", tags, stream=stream))
    await until_asked(standin, 2)
    gate.open()
    assert (await early).status == 200
    gate.calls = 2
    late = await asking
    assert (late.kind, "collapsed" in late.cache_status) == ("miss", False)
    assert standin.inferences == 2
    assert (await sidecar.chat("hello", tags)).kind == "exact", "the later answer is the one that is kept"


async def test_an_answer_that_comes_late_after_a_flush_is_never_found(start, standin, gate):
    sidecar = await start()
    early = asyncio.create_task(sidecar.chat("hello"))
    await until_asked(standin)
    await sidecar.administer("/flush", {"all": True})
    gate.open()
    await early
    assert (await sidecar.chat("hello")).kind == "miss"


async def test_an_answer_that_was_flushed_on_its_way_does_not_take_the_place_of_a_later_one(start, gate):
    sidecar = await start()
    gate.open()
    gate.held = {0}
    early = asyncio.create_task(sidecar.chat("hello"))
    async with asyncio.timeout(PATIENCE):
        while not gate.came:
            await asyncio.sleep(0.005)
    await sidecar.administer("/flush", {"all": True})
    assert "stored" in (await sidecar.chat("hello")).cache_status
    gate.held.clear()
    assert "stored" not in (await early).cache_status
    assert (await sidecar.chat("hello")).kind == "exact"


async def test_loading_an_adapter_parts_from_what_is_in_flight(start, standin, gate):
    standin.load_adapter("lora", "/a")
    sidecar = await start()
    early = asyncio.create_task(sidecar.chat("hello", model="lora"))
    await until_asked(standin)
    await sidecar.post("/v1/load_lora_adapter", {"lora_name": "lora", "lora_path": "/b"})
    asking = asyncio.create_task(sidecar.chat("hello", model="lora"))
    await until_asked(standin, 2)
    gate.open()
    late = await asking
    assert "collapsed" not in late.cache_status
    assert late.text != (await early).text


async def test_marks_of_an_untrusted_caller_do_not_count(start):
    sidecar = await start(trustedHeaders={"from": ["10.0.0.0/8"]})
    marks = {"x-inference-cache-tags": "kb", "x-inference-cache-ttl": "0", "x-inference-cache-category": "pricing"}
    await sidecar.chat("hello", marks)
    assert "ttl=86" in (await sidecar.chat("hello", marks)).cache_status
    for target in ({"tag": "kb"}, {"category": "pricing"}):
        await sidecar.administer("/flush", target)
    assert (await sidecar.chat("hello")).kind == "exact"


@pytest.mark.parametrize(("ttl", "shown"), [("90", 89), ("5m", 299), ("99d", 86399), ("nonsense", 86399)])
async def test_a_trusted_caller_may_shorten_an_answers_life(start, ttl, shown):
    sidecar = await start()
    await sidecar.chat("hello", {"x-inference-cache-ttl": ttl})
    hit = await sidecar.chat("hello")
    assert f"ttl={shown};" in hit.cache_status


async def test_a_life_of_nothing_is_not_stored(start):
    sidecar = await start()
    assert "stored" not in (await sidecar.chat("hello", {"x-inference-cache-ttl": "0"})).cache_status
    assert (await sidecar.chat("hello")).kind == "miss"


async def test_a_category_by_header_needs_no_trust_and_brings_its_lifetime(start):
    sidecar = await start(trustedHeaders={"from": []})
    await sidecar.chat("hello", {"x-team": "support"})
    assert "ttl=6;" in (await sidecar.chat("hello", {"x-team": "support"})).cache_status
    await sidecar.administer("/flush", {"category": "support"})
    assert (await sidecar.chat("hello", {"x-team": "support"})).kind == "miss"


async def test_feedback_evicts_the_entry_and_parts_the_pair_for_good(start_sidecar, standin):
    sidecar = await start_sidecar()
    asked, other = "How do I reset my password?", "How can I reset my password?"
    await sidecar.chat(asked)
    similar = await sidecar.chat(other)
    assert similar.kind == "semantic"
    told = await sidecar.administer("/feedback", {"id": similar.json()["id"], "verdict": "wrong"})
    assert (told.status, told.json()["evicted"]) == (200, True)
    assert (await sidecar.chat(asked)).kind == "miss", "the entry is gone"
    assert (await sidecar.chat(other)).kind == "miss", "stored anew, the pair still is not served"
    assert (await sidecar.chat(other)).kind == "exact"


async def test_right_feedback_keeps_the_entry(start_sidecar):
    sidecar = await start_sidecar()
    await sidecar.chat("How do I reset my password?")
    similar = await sidecar.chat("How can I reset my password?")
    told = await sidecar.administer("/feedback", {"id": similar.json()["id"], "verdict": "right"})
    assert told.json()["evicted"] is False
    assert (await sidecar.chat("How can I reset my password?")).kind == "semantic"


async def test_feedback_by_key_evicts_an_exact_hit(start):
    sidecar = await start()
    await sidecar.chat("hello")
    key = (await sidecar.chat("hello")).cache_status.partition('key="')[2].partition('"')[0]
    assert (await sidecar.administer("/feedback", {"key": key, "verdict": "wrong"})).json()["evicted"] is True
    assert (await sidecar.chat("hello")).kind == "miss"


async def test_a_streamed_answer_can_be_named_by_its_id_too(start_sidecar):
    sidecar = await start_sidecar()
    await sidecar.chat("How do I reset my password?")
    streamed = await sidecar.chat("How can I reset my password?", stream=True)
    assert streamed.kind == "semantic"
    answer_id = streamed.body.partition(b'"id":"')[2].partition(b'"')[0].decode()
    assert (await sidecar.administer("/feedback", {"id": answer_id, "verdict": "wrong"})).json()["evicted"] is True
