"""Many tenants and several models behind one sidecar: nobody crowds anybody out, nobody sees another's answers."""

import asyncio

QUESTION = "How do I reset my password?"
REPHRASED = "How can I reset my password?"
TENANTS = [{"Authorization": f"Bearer tenant-{number}"} for number in range(50)]


async def test_fifty_tenants_who_ask_the_same_all_hit_in_the_second_round(sidecar, standin):
    first = await asyncio.gather(*(sidecar.chat(QUESTION, tenant) for tenant in TENANTS))
    second = await asyncio.gather(*(sidecar.chat(QUESTION, tenant) for tenant in TENANTS))
    assert [answer.kind for answer in first] == ["miss"] * 50
    assert [answer.kind for answer in second] == ["exact"] * 50
    assert standin.inferences == 50


async def test_fifty_tenants_who_rephrase_the_same_all_hit_by_similarity(sidecar, standin):
    """All vectors lie equally near: each tenant is given its own."""
    for tenant in TENANTS:
        await sidecar.chat(QUESTION, tenant)
    again = [await sidecar.chat(REPHRASED, tenant) for tenant in TENANTS]
    assert [answer.kind for answer in again] == ["semantic"] * 50
    stranger = await sidecar.chat(REPHRASED, {"Authorization": "Bearer stranger"})
    assert stranger.kind == "miss"
    assert standin.inferences == 51


async def test_two_models_asked_the_same_both_hit_with_their_own_answer(sidecar, standin):
    standin.models = ("tiny", "large")
    first = {model: await sidecar.chat(QUESTION, model=model) for model in standin.models}
    second = {model: await sidecar.chat(QUESTION, model=model) for model in standin.models}
    rephrased = {model: await sidecar.chat(REPHRASED, model=model) for model in standin.models}
    assert first["tiny"].text != first["large"].text
    for model in standin.models:
        assert (first[model].kind, second[model].kind, rephrased[model].kind) == ("miss", "exact", "semantic")
        assert second[model].text == rephrased[model].text == first[model].text
        assert second[model].json()["model"] == model


async def test_shared_tenancy_lets_all_find_the_same(start_sidecar, standin):
    sidecar = await start_sidecar({"tenancy": {"from": "Shared"}})
    answers = [await sidecar.chat(QUESTION, tenant) for tenant in TENANTS[:5]]
    assert [answer.kind for answer in answers] == ["miss", *["exact"] * 4]
    assert standin.inferences == 1


async def test_shared_answers_are_still_refused_to_a_key_that_upstream_refuses(start_sidecar, standin):
    standin.api_key = "right"
    sidecar = await start_sidecar({"tenancy": {"from": "Shared"}}, ready=False)
    for _ in range(500):
        # The sidecar learns upstream's name with the first key that upstream accepts.
        if (await sidecar.chat(QUESTION, {"Authorization": "Bearer right"})).kind == "exact":
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("the right key never hit")
    for headers in ({"Authorization": "Bearer wrong"}, {}):
        refused = await sidecar.chat(QUESTION, headers)
        assert (refused.status, refused.kind) == (401, "miss")


async def test_an_upstream_that_wants_a_key_does_not_keep_the_sidecar_from_being_ready(start_sidecar, standin):
    """Whoever waits for readiness before it sends the first key would wait for ever."""
    standin.api_key = "right"
    sidecar = await start_sidecar({"semantic": {"mode": "Off"}})
    assert (await sidecar.chat(QUESTION)).status == 401
