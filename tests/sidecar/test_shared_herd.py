"""A herd over three replicas that share a Redis: many ask the same of all of them while the first answer is being generated."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from inference_cache_contract.endpoints import REDIS_URL_VARIABLE
from inference_cache_toolkit.processes import Child, answers, free_port, start, stop, wait_for
from inference_cache_toolkit.standin.faults import Fault
from inference_cache_toolkit.standin.state import Pace

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
HERD = 99
SLOW = Pace(0.5, 0.06)
"""Some 1.5 s an answer."""
THOUGHTFUL = Pace(3.0, 0.06)
"""Long enough to be killed before the first token."""
FOLLOW_SECONDS = 0.1
START_SECONDS = 60.0
PROGRAM = Path(sys.executable).with_name("inference-cache")
ROUNDS = 3
SPEC = {"semantic": {"mode": "Off"}, "store": {"redis": {"deadline": "5s"}}}
"""A busy machine must not turn into a store that is down: that has tests of its own."""


@dataclass
class Told:
    """What a client was told, and when (monotonic seconds)."""

    status: int = 0
    cache_status: str = ""
    text: str = ""
    ids: set[str] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    whole: bool = False
    error: Exception | None = None


async def ask(session: aiohttp.ClientSession, url: str, prompt: str, *, stream: bool, **headers: str) -> Told:
    told = Told()
    body = {"model": "tiny", "messages": [{"role": "user", "content": prompt}], "stream": stream}
    try:
        async with session.post(url + CHAT, json=body, headers=headers) as response:
            told.status, told.cache_status = response.status, response.headers["Cache-Status"]
            await (_read_stream if stream else _read_plain)(told, response)
    except aiohttp.ClientError as error:
        told.error = error
    return told


async def _read_plain(told: Told, response: aiohttp.ClientResponse) -> None:
    answer = await response.json()
    told.times.append(time.monotonic())
    if response.status == 200:
        told.text, told.ids, told.whole = answer["choices"][0]["message"]["content"], {answer["id"]}, True


async def _read_stream(told: Told, response: aiohttp.ClientResponse) -> None:
    async for line in response.content:
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            told.times.append(time.monotonic())
            told.text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            told.ids.add(chunk["id"])
        told.whole = told.whole or line.startswith(b"data: [DONE]")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
async def replicas(start_sidecar, standin, redis):
    standin.pace = SLOW
    return [await start_sidecar(SPEC, redis_url=redis.url) for _ in range(3)]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_herd_over_three_replicas_makes_one_call_and_streams_as_it_runs(replicas, standin, session):
    lags = []
    for number in range(ROUNDS):
        standin.calls.clear()
        asking = [ask(session, replicas[place % 3].url, f"What is a herd? {number}", stream=place % 2 == 0) for place in range(HERD)]
        told = await asyncio.gather(*asking)
        assert standin.inferences == 1
        assert {(each.status, each.whole, each.text) for each in told} == {(200, True, told[0].text)}
        assert all(len(each.ids) == 1 for each in told)
        assert len({min(each.ids) for each in told}) == HERD
        leaders = [each for each in told if "collapsed" not in each.cache_status and "hit" not in each.cache_status]
        assert len(leaders) == 1
        streams = [each for place, each in enumerate(told) if place % 2 == 0]
        if leaders[0] in streams:
            lags.append(max(each.times[0] for each in streams) - leaders[0].times[0])
            # They saw the answer grow, not all of it at its end.
            assert all(each.times[-1] - each.times[0] > 10 * SLOW.per_token / 2 for each in streams)
    # A busy machine may be late once.
    assert not lags or min(lags) < FOLLOW_SECONDS, lags


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_a_leader_of_either_rendition_serves_both_elsewhere(replicas, standin, session, stream):
    leader = asyncio.create_task(ask(session, replicas[0].url, "What is a herd?", stream=stream))
    await until(lambda: standin.inferences)
    asking = [ask(session, replicas[1 + place % 2].url, "What is a herd?", stream=place < 10) for place in range(20)]
    told = await asyncio.gather(*asking)
    first = await leader
    assert {(each.status, each.whole, each.text) for each in told} == {(200, True, first.text)}
    assert standin.inferences == 1
    assert len({min(each.ids) for each in (first, *told)}) == 21


async def test_the_leaders_clients_hanging_up_cost_nobody_elsewhere_the_answer(replicas, standin, session):
    leader = asyncio.create_task(ask(session, replicas[0].url, "What is a herd?", stream=True))
    await until(lambda: standin.inferences)
    followers = [asyncio.create_task(ask(session, replicas[place].url, "What is a herd?", stream=True)) for place in (1, 2)]
    await until(lambda: all(replicas[place].running.parts.flights for place in (1, 2)))
    await asyncio.sleep(SLOW.first_token + 5 * SLOW.per_token)
    leader.cancel()
    told = await asyncio.gather(*followers)
    assert all(each.whole for each in told)
    assert (standin.inferences, standin.aborted) == (1, 0)


async def test_other_tenants_are_not_coalesced(replicas, standin, session):
    asking = [
        ask(session, replica.url, "What is a herd?", stream=True, Authorization=f"Bearer {number}")
        for number, replica in enumerate(replicas)
    ]
    told = await asyncio.gather(*asking)
    assert all(each.whole for each in told)
    assert standin.inferences == 3


async def test_nobody_asking_after_a_flush_is_told_what_was_being_generated_before(replicas, standin, session):
    before = asyncio.create_task(ask(session, replicas[0].url, "What is a herd?", stream=True))
    await until(lambda: standin.inferences)
    assert (await replicas[1].administer("/flush", {"all": True})).status == 200
    told = await asyncio.gather(*(ask(session, replica.url, "What is a herd?", stream=True) for replica in replicas[1:]))
    assert all(each.whole for each in (*told, await before))
    assert standin.inferences == 2


async def test_a_model_server_that_fails_is_asked_once_by_each_replica(replicas, standin, session):
    standin.pace, standin.fault = Pace(), Fault.STATUS_503
    told = await asyncio.gather(*(ask(session, replicas[place % 3].url, "What is a herd?", stream=True) for place in range(30)))
    assert {each.status for each in told} == {503}
    standin.fault = None
    assert (await ask(session, replicas[0].url, "What is a herd?", stream=True)).whole


@dataclass(frozen=True)
class Process:
    """A replica that can be killed."""

    child: Child
    url: str
    admin_url: str

    async def flights(self, session: aiohttp.ClientSession) -> float:
        async with session.get(self.admin_url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("inference_cache_flights "))


@pytest.fixture
def processes(tmp_path, redis, standin_url) -> Iterator[Callable[[], list[Process]]]:
    """Three replicas, stopped with the test."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(SPEC))
    with ExitStack() as stack:

        def begin() -> list[Process]:
            begun = [_begin(spec, number, redis.url, standin_url) for number in range(3)]
            for process in begun:
                stack.callback(stop, process.child)
            for process in begun:
                wait_for(process.child, lambda: answers(process.admin_url + "/readyz"), START_SECONDS)  # noqa: B023
            return begun

        yield begin


def _begin(spec: Path, number: int, redis_url: str, upstream: str) -> Process:
    listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    command = [PROGRAM, "sidecar", "--listen", listen, "--admin", admin, "--upstream", upstream, "--spec", spec]
    child = start(f"sidecar {number}", command, spec.parent / f"sidecar-{number}.log", {**os.environ, REDIS_URL_VARIABLE: redis_url})
    return Process(child, f"http://{listen}", f"http://{admin}")


async def follow(session: aiohttp.ClientSession, processes: list[Process]) -> None:
    """Until each of them has the flight, if only another's."""
    async with asyncio.timeout(60):
        for process in processes:
            while not await process.flights(session):
                await asyncio.sleep(0.02)


async def test_a_leader_that_is_killed_before_the_first_token_costs_exactly_one_call_more(processes, standin, session):
    standin.pace = THOUGHTFUL
    leader, *others = await asyncio.to_thread(processes)
    led = asyncio.create_task(ask(session, leader.url, "What is a herd?", stream=True))
    await until(lambda: standin.inferences)
    asking = [asyncio.create_task(ask(session, others[place % 2].url, "What is a herd?", stream=place % 4 < 2)) for place in range(60)]
    await follow(session, others)
    leader.child.process.kill()
    told = await asyncio.gather(*asking)
    assert {(each.status, each.whole, each.text) for each in told} == {(200, True, told[0].text)}
    assert (await led).error is not None
    assert standin.inferences == 2


async def test_a_leader_that_is_killed_in_mid_answer_costs_exactly_one_call_more(processes, standin, session):
    """Who was shown half an answer is broken off; who was shown nothing gets it."""
    standin.pace = Pace(1.0, 0.2)
    leader, *others = await asyncio.to_thread(processes)
    led = asyncio.create_task(ask(session, leader.url, "What is a herd?", stream=True))
    await until(lambda: standin.inferences)
    streams = [asyncio.create_task(ask(session, others[place % 2].url, "What is a herd?", stream=True)) for place in range(10)]
    plain = [asyncio.create_task(ask(session, others[place % 2].url, "What is a herd?", stream=False)) for place in range(10)]
    await follow(session, others)
    await asyncio.sleep(2.0)
    leader.child.process.kill()
    assert not any(each.whole for each in (await led, *await asyncio.gather(*streams)))
    assert {(each.status, each.whole) for each in await asyncio.gather(*plain)} == {(200, True)}
    assert standin.inferences == 2
