"""A herd: many ask the same while the first answer is still being generated. One upstream call, and everybody is served as it runs."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from statistics import median

import aiohttp
import pytest
from tests.sidecar.conftest import PATIENCE, Client, Gate, until, until_asked, waiting

from inference_cache_toolkit.standin.faults import Fault
from inference_cache_toolkit.standin.state import Pace, Standin

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
HERD = 100
FOLLOW_SECONDS = 0.05
ROUNDS = 5


@dataclass
class Told:
    """What one streaming client was told, and when it was told the first of it (monotonic seconds)."""

    status: int = 0
    cache_status: str = ""
    first: float = 0.0
    events: list[bytes] = field(default_factory=list)

    @property
    def chunks(self) -> list[dict]:
        return [json.loads(event[6:]) for event in self.events if event.startswith(b"data: {")]

    @property
    def text(self) -> str:
        return "".join(choice["delta"].get("content") or "" for chunk in self.chunks for choice in chunk["choices"])

    @property
    def ids(self) -> set[str]:
        return {chunk["id"] for chunk in self.chunks}

    @property
    def whole(self) -> bool:
        return self.events[-1:] == [b"data: [DONE]"]


@dataclass
class Herd:
    """Clients with a connection each, so that none waits for another's."""

    sidecar: Client
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.sidecar.url

    async def joined(self, count: int) -> None:
        """Until so many wait for what is in flight."""
        await until(lambda: waiting(self.sidecar) >= count)

    async def stream(self, prompt: str, leaves_after: int | None = None, told: Told | None = None, **headers: str) -> Told:
        """Reads a streamed answer into `told`; hangs up without a word after `leaves_after` events."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": prompt}], "stream": True}
        told = told or Told()
        async with self.session.post(self.url + CHAT, json=body, headers=headers) as response:
            told.status, told.cache_status = response.status, response.headers["Cache-Status"]
            async for line in response.content:
                if not line.strip():
                    continue
                told.first = told.first or time.monotonic()
                told.events.append(line.strip())
                if len(told.events) == leaves_after:
                    if response.connection is not None:
                        response.connection.transport.abort()
                    break
        return told

    async def plain(self, prompt: str) -> tuple[int, str, str]:
        body = {"model": "tiny", "messages": [{"role": "user", "content": prompt}]}
        async with self.session.post(self.url + CHAT, json=body) as response:
            return response.status, response.headers["Cache-Status"], (await response.json())["choices"][0]["message"]["content"]


@pytest.fixture
async def herd(start_sidecar):
    sidecar = await start_sidecar({"semantic": {"mode": "Off"}})
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Herd(sidecar, session)


async def test_a_hundred_streaming_callers_make_one_call_and_hear_the_first_token_with_the_leader(herd, standin, gate):
    lags = [await lag(herd, standin, gate, f"What is a herd? {number}") for number in range(ROUNDS)]
    # A busy machine may be late now and then, and five times as slow.
    assert median(lags) < 5 * FOLLOW_SECONDS, lags


async def lag(herd: Herd, standin: Standin, gate: Gate, question: str) -> float:
    """Seconds by which the last of a herd hears the first token after its leader."""
    standin.calls.clear()
    gate.events, told = 0, [Told() for _ in range(HERD)]
    asking = asyncio.gather(*(herd.stream(question, told=each) for each in told))
    await herd.joined(HERD)
    gate.events = 1
    await until(lambda: all(each.events for each in told))
    gate.open()
    await asking
    assert standin.inferences == 1
    leaders = [each for each in told if "collapsed" not in each.cache_status]
    assert len(leaders) == 1
    assert all(each.whole and each.text == leaders[0].text for each in told)
    assert len({min(each.ids) for each in told}) == HERD
    return max(each.first for each in told) - leaders[0].first


async def test_a_follower_who_comes_late_hears_what_was_missed_at_once(herd, standin, gate):
    leader = asyncio.create_task(herd.stream("What is a herd?"))
    gate.events = 5
    await until_asked(standin)
    told = Told()
    asking = asyncio.create_task(herd.stream("What is a herd?", told=told))
    await until(lambda: len(told.events) == 5)
    gate.open()
    follower = await asking
    assert follower.text == (await leader).text
    assert standin.inferences == 1


@pytest.mark.parametrize("leaves_after", [1, 4], ids=["at-the-first-event", "in-mid-stream"])
async def test_the_leader_hanging_up_costs_no_follower_its_answer(herd, standin, gate, leaves_after):
    leader = asyncio.create_task(herd.stream("What is a herd?", leaves_after))
    await herd.joined(1)
    asking = [asyncio.create_task(herd.stream("What is a herd?")) for _ in range(20)]
    await herd.joined(21)
    gate.events = leaves_after
    assert len((await leader).events) == leaves_after
    gate.open()
    told = await asyncio.gather(*asking)
    assert all(each.whole and each.text == told[0].text for each in told)
    assert (standin.inferences, standin.aborted) == (1, 0)
    assert "; hit" in (await herd.stream("What is a herd?")).cache_status


async def test_the_leader_hanging_up_before_the_first_token_costs_no_follower_its_answer(herd, standin, gate):
    leader = asyncio.create_task(herd.stream("What is a herd?"))
    await herd.joined(1)
    followers = [asyncio.create_task(herd.stream("What is a herd?")) for _ in range(20)]
    await herd.joined(21)
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    gate.open()
    told = await asyncio.gather(*followers)
    assert all(each.whole and each.text == told[0].text for each in told)
    assert (standin.inferences, standin.aborted) == (1, 0)


async def test_the_last_one_leaving_ends_the_call_and_nothing_is_kept(herd, standin, gate):
    asking = asyncio.gather(*(herd.stream("What is a herd?", 2) for _ in range(5)))
    await herd.joined(5)
    gate.events = 2
    await asking
    async with asyncio.timeout(PATIENCE):
        await standin.hung_up.wait()
    gate.open()
    assert "fwd=miss" in (await herd.stream("What is a herd?")).cache_status
    assert standin.inferences == 2


async def test_one_who_hangs_up_at_the_last_event_leaves_a_stored_answer(herd, standin):
    """As the official clients do: the body's end comes a moment later."""
    standin.pace = Pace(per_token=0.02)
    events = len((await herd.stream("What is a herd?")).events)
    assert "fwd=miss" in (await herd.stream("What is a cache?", events)).cache_status
    assert "; hit" in (await herd.stream("What is a cache?")).cache_status


async def test_plain_and_streaming_callers_share_one_call(herd, standin, gate):
    asking = asyncio.gather(*(herd.stream("What is a herd?") if number % 2 else herd.plain("What is a herd?") for number in range(20)))
    await herd.joined(20)
    gate.open()
    told = await asking
    texts = {each.text if isinstance(each, Told) else each[2] for each in told}
    assert len(texts) == 1
    assert standin.inferences == 1


async def test_a_plain_leader_serves_streaming_followers(herd, standin, gate):
    leader = asyncio.create_task(herd.plain("What is a herd?"))
    await herd.joined(1)
    asking = asyncio.gather(*(herd.stream("What is a herd?") for _ in range(10)))
    await herd.joined(11)
    gate.open()
    told = await asking
    assert {each.text for each in told} == {(await leader)[2]}
    assert all(each.whole for each in told)
    assert standin.inferences == 1


async def test_a_stream_that_breaks_off_breaks_off_for_all(herd, standin, gate):
    standin.fault = Fault.RESET_MID_STREAM
    standin.calls.clear()
    asking = asyncio.gather(*(herd.stream("What is a herd?") for _ in range(20)), return_exceptions=True)
    await herd.joined(20)
    gate.open()
    outcomes = await asking
    assert all(isinstance(each, aiohttp.ClientError) for each in outcomes)
    assert standin.inferences == 1
    standin.fault = None
    again = await herd.stream("What is a herd?")
    assert again.whole
    assert "; hit" not in again.cache_status


@pytest.mark.parametrize("fault", [Fault.STATUS_500, Fault.STATUS_429], ids=lambda fault: fault.value)
async def test_an_error_of_upstream_is_told_to_all_and_kept_for_nobody(herd, standin, fault):
    standin.fault = fault
    told = await asyncio.gather(*(herd.stream("What is a herd?") for _ in range(20)))
    assert {each.status for each in told} == {int(fault.value[-3:])}
    standin.fault = None
    assert (await herd.stream("What is a herd?")).whole


async def test_an_upstream_that_cuts_the_connection_is_a_clear_error_for_all(herd, standin, gate):
    standin.fault = Fault.RESET
    asking = asyncio.gather(*(herd.stream("What is a herd?") for _ in range(20)))
    await herd.joined(20)
    gate.open()
    told = await asking
    assert {each.status for each in told} == {502}
    assert standin.inferences <= 2, "an equal call may be repeated once on a fresh connection, never once a caller"


async def test_different_tenants_are_not_coalesced(herd, standin, gate):
    asking = asyncio.gather(*(herd.stream("What is a herd?", Authorization=f"Bearer {number}") for number in range(5)))
    await herd.joined(5)
    gate.open()
    told = await asking
    assert standin.inferences == 5
    assert not any("collapsed" in each.cache_status for each in told)


async def test_different_questions_are_not_coalesced(herd, standin, gate):
    asking = asyncio.gather(*(herd.stream(f"What is herd {number}?") for number in range(5)))
    await herd.joined(5)
    gate.open()
    told = await asking
    assert standin.inferences == 5
    assert len({each.text for each in told}) == 5
