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
from statistics import median

import aiohttp
import pytest
from tests.sidecar.conftest import PATIENCE, Client, Gate, patient, until, until_asked, waiting

from inference_cache_contract.endpoints import REDIS_URL_VARIABLE
from inference_cache_toolkit.processes import Child, answers, free_port, start, stop, wait_for
from inference_cache_toolkit.standin.faults import Fault
from inference_cache_toolkit.standin.state import Standin

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
HERD = 99
FOLLOW_SECONDS = 0.1
START_SECONDS = 180.0
PROGRAM = Path(sys.executable).with_name("inference-cache")
ROUNDS = 5
SPEC = patient({"semantic": {"mode": "Off"}})


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


async def ask(session: aiohttp.ClientSession, url: str, prompt: str, *, stream: bool, told: Told | None = None, **headers: str) -> Told:
    told = told or Told()
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
    return [await start_sidecar(SPEC, redis_url=redis.url) for _ in range(3)]


async def test_a_herd_over_three_replicas_makes_one_call_and_streams_as_it_runs(replicas, standin, session, gate):
    lags = [await lag(replicas, standin, session, gate, f"What is a herd? {number}") for number in range(ROUNDS)]
    streamed = [each for each in lags if each is not None]
    # A busy machine may be late now and then, and five times as slow.
    assert not streamed or median(streamed) < 5 * FOLLOW_SECONDS, lags


async def lag(replicas: list[Client], standin: Standin, session: aiohttp.ClientSession, gate: Gate, question: str) -> float | None:
    """Seconds by which the last stream of a herd hears the first token after its leader; None where the leader does not stream."""
    standin.calls.clear()
    standin.seen.clear()
    gate.events, told = 0, [Told() for _ in range(HERD)]
    streams = told[::2]
    asking = [ask(session, replicas[place % 3].url, question, stream=place % 2 == 0, told=each) for place, each in enumerate(told)]
    asked = asyncio.gather(*asking)
    await until(lambda: any(seen.path == CHAT for seen in standin.seen))
    await until(lambda: all(waiting(replica) >= HERD // 3 for replica in replicas))
    gate.events = 1
    leader_streams = any(json.loads(seen.body)["stream"] for seen in standin.seen if seen.path == CHAT)
    # They see the answer grow, not all of it at its end.
    await until(lambda: not leader_streams or all(each.times for each in streams))
    gate.open()
    await asked
    assert standin.inferences == 1
    assert {(each.status, each.whole, each.text) for each in told} == {(200, True, told[0].text)}
    assert all(len(each.ids) == 1 for each in told)
    assert len({min(each.ids) for each in told}) == HERD
    leaders = [each for each in told if "collapsed" not in each.cache_status and "hit" not in each.cache_status]
    assert len(leaders) == 1
    assert (leaders[0] in streams) is leader_streams
    return max(each.times[0] for each in streams) - leaders[0].times[0] if leader_streams else None


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_a_leader_of_either_rendition_serves_both_elsewhere(replicas, standin, session, gate, stream):
    leader = asyncio.create_task(ask(session, replicas[0].url, "What is a herd?", stream=stream))
    await until_asked(standin)
    asking = [ask(session, replicas[1 + place % 2].url, "What is a herd?", stream=place < 10) for place in range(20)]
    asked = asyncio.gather(*asking)
    await until(lambda: all(waiting(replica) == 10 for replica in replicas[1:]))
    gate.open()
    told = await asked
    first = await leader
    assert {(each.status, each.whole, each.text) for each in told} == {(200, True, first.text)}
    assert standin.inferences == 1
    assert len({min(each.ids) for each in (first, *told)}) == 21


async def test_the_leaders_clients_hanging_up_cost_nobody_elsewhere_the_answer(replicas, standin, session, gate):
    leader = asyncio.create_task(ask(session, replicas[0].url, "What is a herd?", stream=True))
    await until_asked(standin)
    told = [Told(), Told()]
    followers = asyncio.gather(
        *(ask(session, replica.url, "What is a herd?", stream=True, told=each) for replica, each in zip(replicas[1:], told, strict=True))
    )
    gate.events = 5
    await until(lambda: all(len(each.times) == 5 for each in told))
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    gate.open()
    await followers
    assert all(each.whole for each in told)
    assert (standin.inferences, standin.aborted) == (1, 0)


async def test_other_tenants_are_not_coalesced(replicas, standin, session, gate):
    asking = [
        ask(session, replica.url, "What is a herd?", stream=True, Authorization=f"Bearer {number}")
        for number, replica in enumerate(replicas)
    ]
    asked = asyncio.gather(*asking)
    await until_asked(standin, 3)
    gate.open()
    told = await asked
    assert all(each.whole and "collapsed" not in each.cache_status for each in told)
    assert standin.inferences == 3


async def test_nobody_asking_after_a_flush_is_told_what_was_being_generated_before(replicas, standin, session, gate):
    before = asyncio.create_task(ask(session, replicas[0].url, "What is a herd?", stream=True))
    await until_asked(standin)
    assert (await replicas[1].administer("/flush", {"all": True})).status == 200
    asking = asyncio.gather(*(ask(session, replica.url, "What is a herd?", stream=True) for replica in replicas[1:]))
    await until_asked(standin, 2)
    await until(lambda: all(waiting(replica) for replica in replicas[1:]))
    gate.open()
    told = await asking
    assert all(each.whole for each in (*told, await before))
    assert standin.inferences == 2


async def test_a_model_server_that_fails_is_asked_once_by_each_replica(replicas, standin, session):
    standin.fault = Fault.STATUS_503
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

    async def end(self) -> None:
        self.child.process.kill()
        await asyncio.to_thread(self.child.process.wait)

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
    async with asyncio.timeout(PATIENCE):
        for process in processes:
            while not await process.flights(session):
                await asyncio.sleep(0.02)


async def test_a_leader_that_is_killed_before_the_first_token_costs_exactly_one_call_more(processes, standin, session, gate):
    leader, *others = await asyncio.to_thread(processes)
    led = asyncio.create_task(ask(session, leader.url, "What is a herd?", stream=True))
    await until_asked(standin)
    asking = [asyncio.create_task(ask(session, others[place % 2].url, "What is a herd?", stream=place % 4 < 2)) for place in range(60)]
    await follow(session, others)
    await leader.end()
    gate.open()
    told = await asyncio.gather(*asking)
    assert {(each.status, each.whole, each.text) for each in told} == {(200, True, told[0].text)}
    assert (await led).error is not None
    assert standin.inferences == 2


async def test_a_leader_that_is_killed_in_mid_answer_costs_exactly_one_call_more(processes, standin, session, gate):
    """Who was shown half an answer is broken off; who was shown nothing gets it."""
    leader, *others = await asyncio.to_thread(processes)
    led = asyncio.create_task(ask(session, leader.url, "What is a herd?", stream=True))
    await until_asked(standin)
    shown = [Told() for _ in range(10)]
    streams = [
        asyncio.create_task(ask(session, others[place % 2].url, "What is a herd?", stream=True, told=each))
        for place, each in enumerate(shown)
    ]
    plain = [asyncio.create_task(ask(session, others[place % 2].url, "What is a herd?", stream=False)) for place in range(10)]
    await follow(session, others)
    gate.events = 5
    await until(lambda: all(each.times for each in shown))
    await leader.end()
    gate.open()
    assert not any(each.whole for each in (await led, *await asyncio.gather(*streams)))
    assert {(each.status, each.whole) for each in await asyncio.gather(*plain)} == {(200, True)}
    assert standin.inferences == 2
