"""The end of a pod: nothing is cached any more, nothing in flight is lost, and the answer to preStop comes when all has ended."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.sidecar.conftest import CHAT, PATIENCE, Gate, until, until_asked
from tests.sidecar.hot_sidecars import DRAIN_TOKEN, Hot, Starter, starting

from inference_cache_contract.endpoints import DRAIN, DRAIN_TOKEN_VARIABLE
from inference_cache_contract.sidecar_status import read_sidecar_status
from inference_cache_sidecar.app import Beside
from inference_cache_sidecar.draining import Drain, Drained, DrainParts, OwnMemory
from inference_cache_toolkit.standin.state import Pace, Standin

ASKED = "How do I reset my password?"
OFF: dict[str, Any] = {"semantic": {"mode": "Off"}}


@pytest.fixture
async def start(standin_url: str, tmp_path: Path) -> AsyncIterator[Starter]:
    async with starting(standin_url, tmp_path) as begin:
        yield begin


async def drained(hot: Hot, token: str = DRAIN_TOKEN) -> tuple[int, dict[str, Any]]:
    async with hot.session.get(f"{hot.admin_url}{DRAIN}/{token}") as response:
        return response.status, orjson.loads(await response.read())


async def draining(hot: Hot) -> None:
    await hot.until(lambda told: bool(told["draining"]))


async def in_flight(hot: Hot, count: int = 1) -> None:
    await until(lambda: len(hot.running.parts.flights) >= count)


@pytest.mark.parametrize(
    "token", [pytest.param("wrong", id="wrong"), pytest.param(DRAIN_TOKEN + "x", id="longer"), pytest.param("%C3", id="bytes")]
)
async def test_only_who_knows_the_token_drains(start: Starter, token: str) -> None:
    hot = await start(spec=OFF)
    assert (await drained(hot, token))[0] == 403
    async with hot.session.post(f"{hot.admin_url}{DRAIN}/{DRAIN_TOKEN}") as response:
        assert response.status == 405
    async with hot.session.head(f"{hot.admin_url}{DRAIN}/{DRAIN_TOKEN}") as response:
        assert response.status == 405
    assert not (await hot.status())["draining"]


async def test_without_a_token_nobody_drains(start: Starter) -> None:
    hot = await start(spec=OFF, variables={DRAIN_TOKEN_VARIABLE: ""})
    assert (await drained(hot))[0] == 404
    assert (await drained(hot, "x"))[0] == 404


async def test_a_draining_sidecar_serves_no_hit_stores_nothing_and_hangs_up_after_each_answer(start: Starter, standin: Standin) -> None:
    hot = await start(spec=OFF, least_drain_seconds=60.0)
    await hot.chat(ASKED)
    assert (await hot.chat(ASKED)).kind == "exact"
    waiting = asyncio.create_task(drained(hot))
    await draining(hot)
    for prompt in (ASKED, "another", "another"):
        answer = await hot.chat(prompt)
        assert (answer.status, answer.kind, answer.headers["Connection"]) == (200, "bypass", "close")
        assert 'detail="draining"' in answer.cache_status or "detail=draining" in answer.cache_status
    models = await hot.get("/v1/models")
    assert (models.status, models.headers["Connection"]) == (200, "close")
    refused = await hot.post(CHAT, b"{", {"Content-Type": "application/json"})
    assert refused.headers["Connection"] == "close"
    assert hot.running.store.stats().entries == 1
    async with hot.session.get(hot.admin_url + "/readyz") as response:
        assert (response.status, orjson.loads(await response.read())["reasons"]) == (503, ["the pod is being ended"])
    told = read_sidecar_status(await hot.status())
    assert (told.draining, told.mode) == (True, "Enabled")
    await hot.configured({"exact": {"ttl": "1h"}} | OFF)
    assert (await hot.chat(ASKED)).kind == "bypass", "a drain cannot be revoked"
    waiting.cancel()


async def test_the_answer_comes_when_every_stream_has_ended_whole(start: Starter, standin: Standin, gate: Gate) -> None:
    gate.events = 10
    hot = await start(spec=OFF)
    streams = [
        asyncio.create_task(hot.chat(f"{ASKED} {number}", stream=True, stream_options={"include_usage": True})) for number in range(5)
    ]
    await in_flight(hot, 5)
    waiting = asyncio.create_task(drained(hot))
    await draining(hot)
    late = asyncio.create_task(hot.chat("a late one", stream=True))
    await until_asked(standin, 6)
    gate.open()
    status, told = await waiting
    assert all(task.done() for task in [*streams, late]), "answered while something was in flight"
    answers = [await task for task in [*streams, late]]
    assert {answer.status for answer in answers} == {200}
    assert all(answer.body.endswith(b"data: [DONE]\n\n") for answer in answers)
    assert (status, told["inFlight"]) == (200, 0)
    assert hot.running.store.stats().entries == 0


async def test_what_takes_longer_than_the_drain_timeout_is_not_waited_for(start: Starter, standin: Standin) -> None:
    standin.pace = Pace(first_token=20.0)
    hot = await start(spec=OFF)
    await hot.configured({"rollout": {"drainTimeout": "500ms"}} | OFF)
    asking = asyncio.create_task(hot.chat(ASKED))
    await in_flight(hot)
    status, told = await drained(hot)
    assert (status, told["inFlight"]) == (200, 1)
    assert 0.5 <= told["seconds"] < 15
    assert not asking.done()
    asking.cancel()


async def test_connections_past_this_process_are_waited_for_too(start: Starter) -> None:
    relayed = [2]
    hot = await start(spec=OFF, beside=Beside(relayed=lambda: relayed[0]))
    waiting = asyncio.create_task(drained(hot))
    await hot.until(lambda told: bool(told["draining"]))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    relayed[0] = 0
    assert (await waiting)[1]["inFlight"] == 0


async def test_an_idle_connection_is_hung_up_on_and_does_not_hold_the_drain(start: Starter) -> None:
    hot = await start(spec=OFF)
    listen = hot.running.listen
    reader, writer = await asyncio.open_connection(listen.host, listen.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    status, told = await drained(hot)
    assert (status, told["inFlight"]) == (200, 0)
    async with asyncio.timeout(PATIENCE):
        rest = await reader.read(-1)
    assert b"Connection: close" not in rest, "it was answered before the drain"
    writer.close()


async def test_a_second_hook_gets_its_answer_too(start: Starter) -> None:
    hot = await start(spec=OFF)
    first, second = await asyncio.gather(drained(hot), drained(hot))
    assert (first[0], second[0]) == (200, 200)
    assert (await drained(hot))[0] == 200


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_it_takes_five_seconds_at_least_and_no_longer_than_it_may() -> None:
    clock, flying, marks = Clock(), [0], list[bool]()
    parts = DrainParts(marks.append, lambda: flying[0], lambda: None, ModelServer())
    drain = Drain(parts, 5.0, lambda: 120.0, clock)
    waiting = asyncio.create_task(drain.drained())
    await asyncio.sleep(0.2)
    assert drain.draining
    assert not waiting.done()
    flying[0] = 1
    clock.now += 6
    await asyncio.sleep(0.2)
    assert not waiting.done()
    clock.now += 115
    assert await waiting == Drained(1, 121.0)
    assert marks == [True]
    flying[0] = 0
    assert (await drain.drained()).in_flight == 0


@dataclass
class ModelServer:
    confirmed: bool = True
    process: int = 7


def drain_of(server: ModelServer, marks: list[bool], memory: OwnMemory | None = None) -> Drain:
    return Drain(DrainParts(marks.append, lambda: 0, lambda: None, server), 0.0, lambda: 120.0, memory=memory)


async def test_a_drain_ends_when_a_new_process_of_the_model_server_is_confirmed() -> None:
    server, marks = ModelServer(), list[bool]()
    drain = drain_of(server, marks)
    await drain.drained()
    drain.look()
    assert drain.draining, "the same process: the pod is being ended"
    server.confirmed, server.process = False, 8
    drain.look()
    assert drain.draining, "a process that is not confirmed"
    server.confirmed = True
    drain.look()
    assert not drain.draining
    await drain.drained()
    assert drain.draining, "another hook, another drain"
    assert marks == [True, False, True]


async def test_a_drain_does_not_end_before_the_hook_is_answered() -> None:
    server, marks, flying = ModelServer(process=0, confirmed=False), list[bool](), [1]
    drain = Drain(DrainParts(marks.append, lambda: flying[0], lambda: None, server), 0.0, lambda: 120.0)
    waiting = asyncio.create_task(drain.drained())
    await asyncio.sleep(0)
    server.confirmed, server.process = True, 7
    drain.look()
    flying[0] = 0
    await waiting
    drain.look()
    assert drain.draining, "the process that came up while the hook waited is the one that is ended"


async def test_a_worker_that_comes_after_the_one_that_began_drains_too() -> None:
    memory, marks = OwnMemory(), list[bool]()
    await drain_of(ModelServer(), [], memory).drained()
    successor = drain_of(ModelServer(confirmed=False, process=0), marks, memory)
    successor.look()
    assert (successor.draining, marks) == (True, [True])


async def test_a_pod_that_lives_on_caches_again_once_its_model_server_is_back(start: Starter, standin: Standin) -> None:
    hot = await start(spec=OFF)
    await hot.chat(ASKED)
    await drained(hot)
    await draining(hot)
    standin.restart()
    told = await hot.until(lambda told: not told["draining"])
    assert told["upstreamConfirmed"]
    await hot.chat("another")
    answer = await hot.chat("another")
    assert answer.kind == "exact"
    assert "Connection" not in answer.headers
