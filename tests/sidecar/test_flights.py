import asyncio

import pytest
from multidict import CIMultiDict

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.epochs import MemoryEpochs
from inference_cache_sidecar.errors import SidecarError, UpstreamAborted
from inference_cache_sidecar.flights import WINDOW_BYTES, Flight, Flights, Reader
from inference_cache_sidecar.outcome import Answered, Miss
from inference_cache_sidecar.query.model import Query, Rendition

QUERY = Query(Endpoint.CHAT, "m", b"", "hello", b"hello", True, Rendition())
HEAD = Answered(200, "OK", CIMultiDict(), True, Miss())


async def read_all(reader: Reader) -> bytes:
    return b"".join([part async for batch in reader.batches() for part in batch])


async def speak(flight: Flight, gate: asyncio.Event, words: list[bytes]) -> None:
    flight.decide(HEAD)
    await flight.feed(words[0])
    await gate.wait()
    for word in words[1:]:
        await flight.feed(word)


async def test_a_late_reader_sees_everything_from_the_first_byte():
    flights, gate = Flights(1000, MemoryEpochs()), asyncio.Event()
    flight = flights.start(b"d", QUERY, b"c", lambda flight: speak(flight, gate, [b"a", b"b", b"c"]))
    first = flights.join(flight)
    await flight.decided()
    late = flights.join(flight)
    gate.set()
    assert await asyncio.gather(read_all(first), read_all(late)) == [b"abc", b"abc"]
    assert flights.running(b"d") is None


async def test_the_first_caller_hanging_up_costs_no_follower_its_answer():
    flights, gate = Flights(1000, MemoryEpochs()), asyncio.Event()
    flight = flights.start(b"d", QUERY, b"c", lambda flight: speak(flight, gate, [b"a", b"b"]))
    leader, follower = flights.join(flight), flights.join(flight)
    reading = asyncio.create_task(read_all(leader))
    following = asyncio.create_task(read_all(follower))
    await flight.decided()
    reading.cancel()
    await asyncio.wait((reading,))
    flights.leave(leader)
    gate.set()
    assert await following == b"ab"


async def test_one_cancelled_waiter_does_not_cancel_the_others():
    flights, gate = Flights(1000, MemoryEpochs()), asyncio.Event()

    async def slow(flight: Flight) -> None:
        await gate.wait()
        flight.decide(HEAD)

    flight = flights.start(b"d", QUERY, b"c", slow)
    flights.join(flight)
    one, two = asyncio.create_task(flight.decided()), asyncio.create_task(flight.decided())
    await asyncio.sleep(0)
    one.cancel()
    gate.set()
    assert await two is HEAD


async def test_the_last_reader_leaving_ends_the_upstream_call():
    flights, ended = Flights(1000, MemoryEpochs()), asyncio.Event()

    async def endless(flight: Flight) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    flight = flights.start(b"d", QUERY, b"c", endless)
    reader = flights.join(flight)
    await asyncio.sleep(0)
    flights.leave(reader)
    await asyncio.wait_for(ended.wait(), 60)
    assert flights.running(b"d") is None
    await asyncio.sleep(0)
    assert len(flights) == 0


async def test_nobody_joins_a_flight_that_is_being_given_up():
    flights = Flights(1000, MemoryEpochs())
    flight = flights.start(b"d", QUERY, b"c", lambda flight: asyncio.Event().wait())
    flights.leave(flights.join(flight))
    assert flights.running(b"d") is None
    await flights.close()


async def test_an_upstream_that_breaks_off_breaks_off_every_reader():
    flights = Flights(1000, MemoryEpochs())

    async def abort(flight: Flight) -> None:
        flight.decide(HEAD)
        await flight.feed(b"half")
        raise UpstreamAborted("gone")

    flight = flights.start(b"d", QUERY, b"c", abort)
    readers = [flights.join(flight) for _ in range(3)]
    results = await asyncio.gather(*map(read_all, readers), return_exceptions=True)
    assert [type(result) for result in results] == [UpstreamAborted] * 3


async def test_a_failure_inside_the_cache_reaches_readers_as_an_error(caplog):
    flights = Flights(1000, MemoryEpochs())

    async def broken(flight: Flight) -> None:
        raise RuntimeError("bug")

    flight = flights.start(b"d", QUERY, b"c", broken)
    flights.join(flight)
    with pytest.raises(SidecarError):
        await flight.decided()
    assert "RuntimeError" in caplog.text


async def test_an_answer_past_the_limit_is_read_at_the_slowest_readers_pace_in_bounded_memory():
    flights = Flights(1000, MemoryEpochs())
    part = b"x" * 64 * 1024
    fed = 0

    async def flood(flight: Flight) -> None:
        nonlocal fed
        flight.decide(HEAD)
        for _ in range(100):
            await flight.feed(part)
            fed += 1

    flight = flights.start(b"d", QUERY, b"c", flood)
    reader = flights.join(flight)
    for _ in range(50):
        await asyncio.sleep(0)
    assert fed * len(part) <= WINDOW_BYTES + len(part)
    assert flights.running(b"d") is None
    assert len(await read_all(reader)) == 100 * len(part)


async def test_a_reader_that_leaves_does_not_stop_the_pace_of_the_others():
    flights = Flights(10, MemoryEpochs())
    part = b"x" * WINDOW_BYTES

    async def flood(flight: Flight) -> None:
        flight.decide(HEAD)
        for _ in range(10):
            await flight.feed(part)

    flight = flights.start(b"d", QUERY, b"c", flood)
    stuck, reader = flights.join(flight), flights.join(flight)
    reading = asyncio.create_task(read_all(reader))
    await asyncio.sleep(0.01)
    assert not reading.done()
    flights.leave(stuck)
    assert len(await asyncio.wait_for(reading, 60)) == 10 * len(part)
