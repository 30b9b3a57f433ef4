"""What the modes do and leave, who may hit, and an embedder that fails: the exact tier goes on."""

import asyncio
import threading
import time

import numpy as np
import pytest

from inference_cache_sidecar.embedder.protocol import EmbedderError

ASKED, REPHRASED = "How do I reset my password?", "How can I reset my password?"


async def test_shadow_measures_and_serves_nothing_similar(start_sidecar, standin):
    sidecar = await start_sidecar({"semantic": {"mode": "Shadow"}})
    await sidecar.chat(ASKED)
    assert (await sidecar.chat(REPHRASED)).kind == "miss"
    assert (await sidecar.chat(ASKED)).kind == "exact"
    assert standin.inferences == 2
    shadows = {name: value for name, value in (await sidecar.metrics()).items() if "shadow" in name and 'hit"' in name}
    assert list(shadows.values()) == [1]


async def test_off_embeds_nothing(start_sidecar, standin):
    def load(name, folder):
        raise AssertionError("the embedder was loaded")

    sidecar = await start_sidecar({"semantic": {"mode": "Off"}}, load=load)
    await sidecar.chat(ASKED)
    assert (await sidecar.chat(REPHRASED)).kind == "miss"
    assert (await sidecar.chat(ASKED)).kind == "exact"
    assert sidecar.running.store.stats().vectors == 0
    assert sidecar.running.embedder is None


async def test_a_wrong_key_never_hits(start_sidecar, standin):
    standin.api_key = "right"
    sidecar = await start_sidecar({"semantic": {"mode": "Off"}, "tenancy": {"from": "Shared"}}, ready=False)
    await sidecar.chat(ASKED, {"Authorization": "Bearer right"})
    async with asyncio.timeout(60):
        while (await sidecar.chat(ASKED, {"Authorization": "Bearer right"})).kind != "exact":
            await asyncio.sleep(0.01)
    for credential in ({"Authorization": "Bearer wrong"}, {}):
        answer = await sidecar.chat(ASKED, credential)
        assert (answer.status, answer.json()) == (401, {"error": "Unauthorized"})
        assert "fwd=miss" in answer.cache_status


async def test_a_revoked_key_stops_hitting_after_revalidate(start_sidecar, standin):
    standin.api_key = "old"
    sidecar = await start_sidecar({"semantic": {"mode": "Off"}, "tenancy": {"revalidate": "300ms"}}, ready=False)
    old = {"Authorization": "Bearer old"}
    await sidecar.chat(ASKED, old)
    async with asyncio.timeout(60):
        while (await sidecar.chat(ASKED, old)).kind != "exact":
            await asyncio.sleep(0.01)
    standin.api_key = "new"
    await asyncio.sleep(0.35)
    answer = await sidecar.chat(ASKED, old)
    assert (answer.status, answer.kind) == (401, "miss")


class Fake:
    """Gives every text the same vector, until it is told to misbehave."""

    name, dimensions, max_tokens, digest = "fake", 384, 256, "00" * 32

    def __init__(self, misbehave):
        self._misbehave = misbehave
        self.broken = False
        self.calls = 0

    def embed(self, texts):
        if self.broken:
            self.calls += 1
            self._misbehave()
        vector = np.zeros(384, np.float32)
        vector[0] = 1
        return [vector for _ in texts]


def raising():
    raise RuntimeError("out of order")


@pytest.fixture
def let_go():
    """Set in the end, so that no thread of a hung embedder outlives its test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("how", ["hangs", "raises"])
async def test_the_exact_tier_goes_on_without_the_embedder_and_soon_pays_nothing_for_it(start_sidecar, let_go, how):
    fake = Fake(raising if how == "raises" else lambda: let_go.wait(20))
    spec = {"semantic": {"embedder": {"deadline": "1s"}}}
    sidecar = await start_sidecar(spec, load=lambda name, folder: fake)
    await sidecar.chat(ASKED)
    assert (await sidecar.chat(REPHRASED)).kind == "semantic", "the fake finds everything similar"
    fake.broken = True
    took = []
    for number in range(12):
        begun = time.perf_counter()
        answer = await sidecar.chat(f"Where is the station of Bahnhof{number}?")
        took.append(time.perf_counter() - begun)
        assert (answer.status, answer.kind) == (200, "miss")
        begun = time.perf_counter()
        assert (await sidecar.chat(f"Where is the station of Bahnhof{number}?")).kind == "exact"
        took.append(time.perf_counter() - begun)
    assert sorted(took)[len(took) // 2] < 0.5, took
    assert max(took) < 10, took
    assert fake.calls < 12, "the breaker has opened"
    refused = (await sidecar.metrics())["inference_cache_embedder_refused"]
    assert refused > 0


async def test_an_embedder_that_cannot_be_loaded_leaves_the_exact_tier(start_sidecar):
    def load(name, folder):
        raise EmbedderError("no such model")

    sidecar = await start_sidecar({}, load=load)
    assert [(await sidecar.chat(ASKED)).kind, (await sidecar.chat(ASKED)).kind, (await sidecar.chat(REPHRASED)).kind] == [
        *("miss", "exact"),
        "miss",
    ]
    async with sidecar.session.get(sidecar.admin_url + "/status") as response:
        assert (await response.json())["embedder"] not in ("ready", "off")
