"""A supervised sidecar whose worker is killed, frozen, starved, replaced or near its memory limit: what clients see of it."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from tests.services.supervised import (
    FIRST_ANSWER_SECONDS,
    HITS_BACK_SECONDS,
    PROGRAM,
    QUESTIONS,
    SLACK,
    Load,
    Supervised,
    alive,
    ask,
    hits,
    resident_bytes,
    say,
    supervised,
    until,
)

from inference_cache_sidecar.supervisor.plan import CONTROL_GROUPS
from inference_cache_sidecar.supervisor.shared_page import Count
from inference_cache_toolkit.processes import answers, free_port, start, stop, wait_for

pytestmark = [pytest.mark.services, pytest.mark.slow]
START_SECONDS = 150.0
SMALL_BYTES = 30_000_000
IMPORTS_SECONDS = 1.0
"""For a child that imports what a worker does; half of it where nothing else runs."""


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[Callable[[int], str]]:
    """`standin(tokens)` is the URL of one whose answers have so many, 20 ms each."""
    with ExitStack() as stack:

        def begin(tokens: int) -> str:
            port = free_port()
            arguments = ["--listen", f"127.0.0.1:{port}", "--first-token", "5ms", "--per-token", "20ms", "--tokens", str(tokens)]
            child = start("standin", [PROGRAM, "standin", *arguments], tmp_path / f"standin-{port}.log")
            stack.callback(stop, child)
            wait_for(child, lambda: answers(f"http://127.0.0.1:{port}/health"), START_SECONDS)
            return f"http://127.0.0.1:{port}"

        yield begin


@pytest.fixture
def begin(standin: Callable[[int], str], tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """A supervised sidecar in front of a stand-in; its first worker may still be starting."""
    with ExitStack() as stack:

        def begin(*, tokens: int = 4, control_groups: Path | None = None) -> Supervised:
            groups = CONTROL_GROUPS if control_groups is None else str(control_groups)
            return stack.enter_context(supervised(standin(tokens), tmp_path / "sidecar.log", groups))

        yield begin


@asynccontextmanager
async def loaded(url: str, a_second: float = 50.0) -> AsyncIterator[Load]:
    """Load that has come to hits, and all of whose requests have ended in the end."""
    await hits(url)
    load = Load(url, a_second)
    running = asyncio.create_task(load.run())
    try:
        await until(lambda: len(load.answers) > 3 * QUESTIONS, START_SECONDS)
        yield load
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def slack() -> float:
    """How many times what is promised a deadline is: more where the machine is slow, as what is not ours tells."""
    since = time.monotonic()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "import numpy, aiohttp")
    assert await child.wait() == 0
    return SLACK * min(SLACK, max(1.0, (time.monotonic() - since) / IMPORTS_SECONDS))


@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, id="frozen")])
async def test_new_connections_are_answered_and_hits_come_back_when_the_worker_is(begin: Callable[..., Supervised], how: int) -> None:
    times = await slack()
    sidecar = begin()
    await hits(sidecar.url)
    async with loaded(sidecar.url) as load:
        (worker,) = sidecar.workers()
        os.kill(worker, how)
        since = time.monotonic()
        await until(lambda: any(answer.hit and answer.began > since for answer in load.answers), HITS_BACK_SECONDS * times)
        await until(lambda: load.answers[-1].began > since + HITS_BACK_SECONDS, START_SECONDS)
    first, back, slowest = load.first_answer_seconds(since), load.hits_back_seconds(since), load.slowest_seconds(since)
    say(f"{len(load.answers)} requests: first answer {first:.2f} s, slowest {slowest:.2f} s, hits back {back:.2f} s")
    assert not load.failed(since)
    assert slowest < FIRST_ANSWER_SECONDS * times
    assert back < HITS_BACK_SECONDS * times
    assert worker not in sidecar.workers()


async def test_a_worker_that_could_not_run_because_nobody_could_is_not_killed(begin: Callable[..., Supervised]) -> None:
    sidecar = begin()
    await hits(sidecar.url)
    (worker,) = sidecar.workers()
    for pid in (sidecar.pid, worker):
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(7.0)  # what is tested is the length of the stop
    # The worker first: a supervisor that goes on alone for long would be right to kill it.
    for pid in (worker, sidecar.pid):
        os.kill(pid, signal.SIGCONT)
    await hits(sidecar.url)
    page = sidecar.page(worker)
    assert sidecar.workers() == [worker]
    assert page.told(Count.RESTARTS) == 0


async def test_a_worker_that_comes_back_in_time_goes_on_with_what_it_has(begin: Callable[..., Supervised]) -> None:
    sidecar = begin()
    await hits(sidecar.url)
    (worker,) = sidecar.workers()
    os.kill(worker, signal.SIGSTOP)
    await until(lambda: len(sidecar.workers()) == 2, START_SECONDS)
    os.kill(worker, signal.SIGCONT)
    await until(lambda: sidecar.workers() == [worker], START_SECONDS)
    async with aiohttp.ClientSession() as session:
        assert await ask(session, sidecar.url, 0), "its entries are still there"


async def test_requests_are_answered_before_the_first_worker_has_started(begin: Callable[..., Supervised]) -> None:
    sidecar = begin()
    async with aiohttp.ClientSession() as session:
        assert not await ask(session, sidecar.url, 0)
    await hits(sidecar.url)


async def test_a_client_that_keeps_its_connection_comes_back_to_the_cache(begin: Callable[..., Supervised]) -> None:
    times = await slack()
    sidecar = begin()
    await hits(sidecar.url)
    (worker,) = sidecar.workers()
    os.kill(worker, signal.SIGKILL)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:

        async def hit() -> bool:
            return await ask(session, sidecar.url, 0)

        assert not await hit()
        await until(hit, HITS_BACK_SECONDS * times)


async def test_a_successor_takes_over_and_no_client_sees_it(begin: Callable[..., Supervised]) -> None:
    sidecar = begin(tokens=1500)
    async with loaded(sidecar.url, 100.0) as load:
        (worker,) = sidecar.workers()
        async with aiohttp.ClientSession() as session:
            stream = asyncio.create_task(streamed(session, sidecar.url))
            sidecar.page(worker).ask_for_successor()
            await until(lambda: len(sidecar.workers()) == 2 and sidecar.page(worker).retired, START_SECONDS)
            assert not stream.done(), "the one before finishes it"
            assert await stream
            await until(lambda: worker not in sidecar.workers(), START_SECONDS)
        await until(lambda: load.answers[-1].hit, START_SECONDS)
    say(f"{len(load.answers)} requests, slowest {load.slowest_seconds(0.0):.2f} s")
    assert [answer.failure for answer in load.answers if answer.failure] == []
    (successor,) = sidecar.workers()
    assert sidecar.page(successor).told(Count.HAND_OVERS) == 1


async def test_near_the_memory_limit_the_worker_keeps_less_and_is_then_replaced(begin: Callable[..., Supervised], tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    groups.mkdir()
    (groups / "memory.max").write_text("10000000000\n")
    (groups / "memory.stat").write_text("inactive_file 1000000000\nanon 1\n")
    (groups / "memory.current").write_text("2000000000\n")
    sidecar = begin(control_groups=groups)
    async with loaded(sidecar.url, 50.0) as load:
        (worker,) = sidecar.workers()
        page = sidecar.page(worker)
        cap = await scraped(sidecar, "inference_cache_store_max_bytes")
        (groups / "memory.current").write_text("9600000000\n")

        def sheds() -> bool:
            is_replaced = len(sidecar.workers()) > 1
            is_ordered = page.shedding_orders >= 1
            assert is_ordered or not is_replaced, "less may be enough"
            return is_ordered

        await until(sheds, START_SECONDS)
        await until(lambda: shrunk(sidecar, cap), START_SECONDS)
        await until(lambda: len(sidecar.workers()) > 1, START_SECONDS)
        (groups / "memory.current").write_text("2000000000\n")
        await until(lambda: worker not in sidecar.workers(), START_SECONDS)
    assert [answer.failure for answer in load.answers if answer.failure] == []


def groups_of(folder: Path, limit: int, used: int) -> Path:
    """Control groups that say so, second version."""
    groups = folder / "groups"
    groups.mkdir()
    (groups / "memory.max").write_text(f"{limit}\n")
    (groups / "memory.stat").write_text("inactive_file 0\nanon 1\n")
    (groups / "memory.current").write_text(f"{used}\n")
    return groups


async def test_at_the_memory_limit_the_worker_is_killed_and_another_one_is_there_soon(
    begin: Callable[..., Supervised], tmp_path: Path
) -> None:
    groups = groups_of(tmp_path, 10_000_000_000, 2_000_000_000)
    sidecar = begin(control_groups=groups)
    async with loaded(sidecar.url, 50.0) as load:
        (worker,) = sidecar.workers()
        since = time.monotonic()
        (groups / "memory.current").write_text("9800000000\n")
        await until(lambda: not alive(worker), START_SECONDS)
        (groups / "memory.current").write_text("2000000000\n")
        await until(lambda: any(answer.hit and answer.began > since + 1.0 for answer in load.answers), START_SECONDS)
        await until(lambda: len(sidecar.workers()) == 1, START_SECONDS)
    assert not load.failed(since)
    (successor,) = sidecar.workers()
    assert successor != worker
    assert sidecar.page(successor).told(Count.RESTARTS) == 1


async def test_where_there_is_no_room_for_two_the_old_worker_finishes_before_the_next_one_starts(
    begin: Callable[..., Supervised], tmp_path: Path
) -> None:
    sidecar = begin(tokens=1000, control_groups=groups_of(tmp_path, 240_000_000, 200_000_000))
    await hits(sidecar.url)
    (worker,) = sidecar.workers()
    page, seen = sidecar.page(worker), set[int]()
    async with aiohttp.ClientSession() as session:
        stream = asyncio.create_task(streamed(session, sidecar.url))
        await until(lambda: scraped_flights(sidecar), START_SECONDS)
        page.ask_for_successor()
        await until(lambda: page.retired, START_SECONDS)
        # Until its next beat the old one still takes connections.
        await until(lambda: goes_past_the_cache(sidecar.url), START_SECONDS)
        assert not stream.done()

        def replaced() -> bool:
            seen.add(len(sidecar.workers()))
            return worker not in sidecar.workers() and sidecar.workers() != []

        await until(replaced, START_SECONDS)
        assert await stream, "the old one has finished it"
    assert max(seen) == 1
    await hits(sidecar.url)
    (successor,) = sidecar.workers()
    assert sidecar.page(successor).told(Count.HAND_OVERS) == 1
    assert sidecar.page(successor).told(Count.RESTARTS) == 0


async def goes_past_the_cache(url: str) -> bool:
    """A new connection with a question that was answered before."""
    async with aiohttp.ClientSession() as session:
        return not await ask(session, url, 0)


async def scraped_flights(sidecar: Supervised) -> bool:
    return await scraped(sidecar, "inference_cache_flights") > 0


async def streamed(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether a long answer came whole."""
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "A long one?"}], "stream": True}
    async with session.post(url + "/v1/chat/completions", json=asked) as answer:
        return (await answer.read()).endswith(b"data: [DONE]\n\n")


async def scraped(sidecar: Supervised, name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(sidecar.admin_url + "/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


async def shrunk(sidecar: Supervised, cap: float) -> bool:
    return await scraped(sidecar, "inference_cache_store_max_bytes") < cap


async def test_it_ends_like_its_worker_after_what_is_in_flight(begin: Callable[..., Supervised]) -> None:
    sidecar = begin(tokens=100)
    await hits(sidecar.url)
    (worker,) = sidecar.workers()
    async with aiohttp.ClientSession() as session:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "A long one?"}], "stream": True}
        async with session.post(sidecar.url + "/v1/chat/completions", json=asked) as answer:
            await answer.content.readany()
            sidecar.child.process.send_signal(signal.SIGTERM)
            assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")
    assert await asyncio.to_thread(sidecar.child.process.wait, START_SECONDS) == 0
    assert not alive(worker)


async def test_a_worker_ends_with_its_supervisor(begin: Callable[..., Supervised]) -> None:
    sidecar = begin()
    await hits(sidecar.url)
    (worker,) = sidecar.workers()
    sidecar.child.process.kill()
    sidecar.child.process.wait()
    await until(lambda: not alive(worker), START_SECONDS)


async def test_the_command_supervises_and_stays_small(standin: Callable[[int], str], tmp_path: Path) -> None:
    listen, admin = free_port(), free_port()
    arguments = ["--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}", "--upstream", standin(4), "--semantic-mode", "Off"]
    child = start("sidecar", [PROGRAM, "sidecar", "--supervise", *arguments], tmp_path / "command.log")
    try:
        await hits(f"http://127.0.0.1:{listen}")
        assert answers(f"http://127.0.0.1:{admin}/readyz")
        resident = resident_bytes(child.process.pid)
        say(f"the supervisor takes {resident / 1e6:.1f} MB")
        assert resident < SMALL_BYTES
    finally:
        stop(child, START_SECONDS)
    assert child.process.returncode == 0
