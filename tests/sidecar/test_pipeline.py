"""The main path, end to end: a sidecar in front of the stand-in."""

import asyncio

import pytest


async def test_a_repeated_question_is_answered_without_upstream(sidecar, standin):
    first = await sidecar.chat("What is the capital of France?")
    second = await sidecar.chat("what is  the capital of france")
    assert (first.kind, second.kind) == ("miss", "exact")
    assert first.text == second.text
    assert standin.inferences == 1
    assert first.json()["id"] != second.json()["id"]


async def test_a_rephrased_question_is_answered_by_similarity(sidecar, standin):
    await sidecar.chat("How do I reset my password?")
    again = await sidecar.chat("How can I reset my password?")
    assert again.kind == "semantic"
    assert standin.inferences == 1


async def test_the_opposite_question_is_refused_with_its_reason(sidecar, standin):
    await sidecar.chat("Should I drink coffee before a workout?")
    opposite = await sidecar.chat("Should I drink coffee after a workout?")
    assert opposite.kind == "miss"
    assert "guard=" in opposite.cache_status
    assert standin.inferences == 2


async def test_one_entry_serves_streams_and_plain_clients_both_ways(sidecar, standin):
    plain = await sidecar.chat("How far is the moon?")
    streamed = await sidecar.chat("How far is the moon?", stream=True)
    assert streamed.kind == "exact"
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    await sidecar.chat("How far is the sun?", stream=True)
    from_stream = await sidecar.chat("How far is the sun?")
    assert from_stream.kind == "exact"
    assert from_stream.json()["usage"]["completion_tokens"] > 0
    assert set(from_stream.json()) >= set(plain.json())
    assert standin.inferences == 2


async def test_an_answer_may_be_kept_by_no_cache_outside(sidecar):
    for _ in range(2):
        answer = await sidecar.chat("hello there")
        assert answer.headers["Cache-Control"] == "private, no-store"


async def test_tenants_never_see_each_others_answers(sidecar, standin):
    await sidecar.chat("my secret?", {"Authorization": "Bearer a"})
    other = await sidecar.chat("my secret?", {"Authorization": "Bearer b"})
    assert other.kind == "miss"
    assert standin.inferences == 2


async def test_equal_questions_in_flight_make_one_upstream_call(sidecar, standin):
    answers = await asyncio.gather(*(sidecar.chat("What is a herd?") for _ in range(50)))
    assert standin.inferences == 1
    assert len({answer.text for answer in answers}) == 1
    assert sum("collapsed" in answer.cache_status for answer in answers) == 49


@pytest.mark.parametrize("path", ["/health", "/version", "/ping", "/metrics"])
async def test_what_is_not_cacheable_passes_as_it_is(sidecar, standin_url, path):
    direct = await sidecar.session.get(standin_url + path)
    through = await sidecar.get(path)
    assert through.status == direct.status
    assert path == "/metrics" or through.body == await direct.read()
    assert "fwd=method" in through.cache_status
